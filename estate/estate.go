package estate

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// HostToken is the token for one git host.
type HostToken struct {
	Token Token
	// User is the name that the host wants with a token: "x-access-token" (GitHub), "oauth2" (GitLab).
	User string
}

// Estate fetches repositories into a cache. Cache, Name and Want must be set.
type Estate struct {
	// Cache is the directory that holds all estates; it is made when it is missing.
	Cache string
	// Name tells estates apart: "github.com/acme", "list:repos.txt".
	Name string
	// Want reports whether a file can be a definition, by the last part of its name.
	Want func(base string) bool
	// Tokens are by host, with the port if there is one.
	Tokens map[string]HostToken
	// Relist asks for the listing also when an interrupted run is gone on with: it costs nothing, and may have changed.
	Relist bool
	// Workers is how many repositories are fetched at the same time; 0 is 4.
	Workers int
	// Timeout bounds one repository; 0 is five minutes.
	Timeout time.Duration
	// MaxBytes bounds one repository on the disk; 0 is 1 GiB.
	MaxBytes int64
	// Progress, when set, is told how many repositories of how many are done,
	// and a sentence about the last one if something was wrong with it.
	Progress func(done, total int, note string)
	// Clock is for tests; the zero value is time itself.
	Clock Clock

	dir string
}

// Result is what a run has brought.
type Result struct {
	// Root is the directory to scan; the names below it are those of the repositories.
	Root string
	// Repositories that are there, Fetched of them asked for in this run, Resumed
	// by the run before it that was interrupted, Unchanged by their stamp.
	Repositories, Fetched, Resumed, Unchanged int
	// Failures are what is missing.
	Failures []Failure
}

// resumeFor is how long an interrupted run can be gone on with.
const resumeFor = 24 * time.Hour

func (e *Estate) timeout() time.Duration { return cmp.Or(e.Timeout, 5*time.Minute) }
func (e *Estate) maxBytes() int64        { return cmp.Or(e.MaxBytes, 1<<30) }
func (e *Estate) clock() Clock {
	if e.Clock.Wait == nil {
		return wallClock()
	}
	return e.Clock
}

// open makes the estate's own directory in the cache and locks it: two runs would undo each other.
func (e *Estate) open() (unlock func(), err error) {
	cache, err := filepath.Abs(e.Cache) // git runs in another directory
	if err != nil {
		return nil, fmt.Errorf("estate: the cache can't be made: %w", err)
	}
	e.dir = filepath.Join(cache, directoryName(e.Name))
	for _, d := range []string{"", "git", "tree", "new", "home", "state"} {
		if err := os.MkdirAll(filepath.Join(e.dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("estate: the cache can't be made: %w", err)
		}
	}
	lock, err := os.OpenFile(filepath.Join(e.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("estate: the cache can't be locked: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("estate: another run fetches %s at this moment; wait for it, or name another --cache", e.Name)
	}
	return func() { _ = lock.Close() }, nil // the lock ends with it
}

// directoryName makes a name for a directory that people recognise, and that no other estate has.
func directoryName(name string) string {
	sum := sha256.Sum256([]byte(name))
	plain := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '_'
	}, name)
	return strings.TrimLeft(plain[:min(len(plain), 60)], ".-") + "-" + hex.EncodeToString(sum[:3])
}

// run is the state of a run that has not ended.
type run struct {
	Started time.Time `json:"started"`
	Listing *Listing  `json:"listing"`
}

// Gather fetches every repository of a listing. list is asked only when no
// interrupted run of the last day is there to go on with. The error is about
// the whole; what is wrong with one repository is in Result.Failures.
func (e *Estate) Gather(ctx context.Context, list func(context.Context) (*Listing, error)) (*Result, error) {
	unlock, err := e.open()
	if err != nil {
		return nil, err
	}
	defer unlock()
	r, resumed := e.resume()
	if !resumed || e.Relist {
		listing, err := list(ctx)
		if err != nil {
			return nil, err
		}
		if err := notNested(listing.Repositories); err != nil {
			return nil, fmt.Errorf("estate: %w", err)
		}
		if !resumed {
			r = &run{Started: e.clock().Now().UTC()}
		}
		r.Listing = listing
		if err := writeJSON(filepath.Join(e.dir, "run.json"), r); err != nil {
			return nil, err
		}
	}
	res := &Result{Root: filepath.Join(e.dir, "tree")}
	if err := e.fetchAll(ctx, r, resumed, res); err != nil {
		return nil, err
	}
	if err := e.prune(r.Listing); err != nil {
		return nil, err
	}
	if err := os.Remove(filepath.Join(e.dir, "run.json")); err != nil {
		return nil, err
	}
	if res.Repositories == 0 && len(res.Failures) > 0 {
		return nil, fmt.Errorf("estate: none of %d repositories could be fetched; the first: %s: %s", len(r.Listing.Repositories), res.Failures[0].Repository, res.Failures[0].Why)
	}
	return res, nil
}

// resume reads the state of a run that was interrupted.
func (e *Estate) resume() (*run, bool) {
	var r run
	if readJSON(filepath.Join(e.dir, "run.json"), &r) != nil || r.Listing == nil || e.clock().Now().Sub(r.Started) > resumeFor {
		return nil, false
	}
	return &r, true
}

// fetchAll works through the listing with a bounded number of workers.
func (e *Estate) fetchAll(ctx context.Context, r *run, resumed bool, res *Result) error {
	work := make(chan Repository)
	var mu sync.Mutex
	var wg sync.WaitGroup
	var broken error
	done, total := 0, len(r.Listing.Repositories)
	for range min(cmp.Or(e.Workers, 4), max(total, 1)) {
		wg.Go(func() {
			for repo := range work {
				how, got, err := e.one(ctx, repo, r, resumed)
				mu.Lock()
				note := res.take(repo, how, got, err, e.hasTree(repo))
				if err == nil {
					if err := writeJSON(e.stateOf(repo), got); err != nil && broken == nil {
						broken = err
					}
				}
				done++
				if e.Progress != nil && ctx.Err() == nil {
					e.Progress(done, total, note)
				}
				mu.Unlock()
			}
		})
	}
feed:
	for _, repo := range r.Listing.Repositories {
		select {
		case work <- repo:
		case <-ctx.Done():
			break feed
		}
	}
	close(work)
	wg.Wait()
	slices.SortFunc(res.Failures, func(a, b Failure) int {
		return cmp.Or(cmp.Compare(a.Repository, b.Repository), cmp.Compare(a.Name, b.Name))
	})
	return cmp.Or(ctx.Err(), broken)
}

// one brings one repository, if it isn't there already.
func (e *Estate) one(ctx context.Context, repo Repository, r *run, resumed bool) (how string, got *fetched, err error) {
	known := new(fetched)
	if readJSON(e.stateOf(repo), known) != nil {
		known = nil
	}
	if known != nil && known.URL == repo.URL && e.hasTree(repo) {
		switch {
		case resumed && !known.At.Before(r.Started):
			return "resumed", known, nil
		case repo.Stamp != "" && known.Stamp == repo.Stamp:
			return "unchanged", known, nil
		}
	}
	got, err = e.fetch(ctx, repo, known)
	return "fetched", got, err
}

// take books one repository and gives the sentence for progress.
func (res *Result) take(repo Repository, how string, got *fetched, err error, stale bool) (note string) {
	if err != nil {
		why := err.Error()
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			why = "it took longer than the bound"
		case errors.Is(err, context.Canceled):
			why = "interrupted"
		}
		if stale {
			why += "; what an earlier run fetched is shown"
		}
		res.Failures = append(res.Failures, Failure{repo.Name, repo.Name, "repository", "could not be fetched: " + why})
		return repo.Name + ": " + why
	}
	res.Repositories++
	switch how {
	case "resumed":
		res.Resumed++
	case "unchanged":
		res.Unchanged++
	default:
		res.Fetched++
	}
	res.Failures = append(res.Failures, got.Failures...)
	return ""
}

// prune removes from the tree what the listing no longer names: it must not be scanned.
func (e *Estate) prune(l *Listing) error {
	keep := make(map[string]bool)
	for _, r := range l.Repositories {
		for dir := r.Name; dir != "."; dir = filepath.ToSlash(filepath.Dir(dir)) {
			keep[dir] = keep[dir] || dir != r.Name
		}
	}
	whole := make(map[string]bool, len(l.Repositories))
	for _, r := range l.Repositories {
		whole[r.Name] = true
	}
	var visit func(rel string) error
	visit = func(rel string) error {
		entries, err := os.ReadDir(filepath.Join(e.dir, "tree", rel))
		if err != nil {
			return err
		}
		for _, d := range entries {
			name := filepath.ToSlash(filepath.Join(rel, d.Name()))
			switch {
			case whole[name]:
			case keep[name]:
				if err := visit(name); err != nil {
					return err
				}
			default:
				if err := os.RemoveAll(filepath.Join(e.dir, "tree", name)); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return visit("")
}

func (e *Estate) treeOf(r Repository) string {
	return filepath.Join(e.dir, "tree", filepath.FromSlash(r.Name))
}

func (e *Estate) hasTree(r Repository) bool {
	info, err := os.Stat(e.treeOf(r))
	return err == nil && info.IsDir()
}

func (e *Estate) stateOf(r Repository) string {
	sum := sha256.Sum256([]byte(r.Name))
	return filepath.Join(e.dir, "state", hex.EncodeToString(sum[:16])+".json")
}

// hostOf gives the host of a URL with its port.
func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Host)
}

// writeJSON writes a file in one step: an interrupted run leaves the old one.
func writeJSON(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.WriteFile(name+".new", data, 0o600); err != nil {
		return fmt.Errorf("estate: the cache can't be written: %w", err)
	}
	return os.Rename(name+".new", name)
}

func readJSON(name string, v any) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}
