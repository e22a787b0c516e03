package audit

import (
	"errors"
	"io/fs"
	"net/http"
	"strconv"
	"strings"

	"github.com/proviso-ci/proviso/store"
)

// Handler serves the log as C2SP tlog-tiles: /checkpoint and /tile/..., below
// whatever prefix the caller strips. Anybody may have the checkpoint and the
// hashes; they tell how many decisions there were and nothing of any. The
// entries tell what every tenant does, so a handler serves them only if it is
// told to, and then belongs on a listener that only auditors reach.
func Handler(db *store.DB, entries bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodGet && req.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "the log is read with GET", http.StatusMethodNotAllowed)
			return
		}
		last, err := db.LastBatch(req.Context())
		if err != nil {
			http.Error(w, "the log can't be read", http.StatusServiceUnavailable)
			return
		}
		path := strings.TrimPrefix(req.URL.Path, "/")
		if path == checkpointPath && last.Size > 0 {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Header().Set("Cache-Control", "no-cache")
			answer(w, last.Note)
			return
		}
		r, ok := parseResource(path)
		if !ok || (r.level == entriesLevel && !entries) {
			http.Error(w, "there is no such part of the log", http.StatusNotFound)
			return
		}
		data, err := read(req.Context(), db, r, last.Size)
		if errors.Is(err, fs.ErrNotExist) {
			http.Error(w, "there is no such part of the log", http.StatusNotFound)
			return
		}
		if err != nil {
			http.Error(w, "the log can't be read", http.StatusServiceUnavailable)
			return
		}
		// What a path names never changes; entries are not for shared caches.
		w.Header().Set("Content-Type", "application/octet-stream")
		if r.level == entriesLevel {
			w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
		} else {
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		}
		answer(w, data)
	})
}

func answer(w http.ResponseWriter, data []byte) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	_, _ = w.Write(data) //nolint:gosec // tiles and checkpoints, not to be sniffed; a client that is gone misses nothing
}
