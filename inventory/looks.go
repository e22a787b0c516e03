package inventory

// looks is the only way of a reader to the rest of the tree. It writes down
// what was looked at and what was there, absent files too: that, and the file
// itself, is all that the reader's result depends on.
type looks struct {
	tree  *tree
	file  string // the reader's own
	asked []asked
	noted map[asked]bool
	// claimed are the files that were read as part of this one.
	claimed []string
}

// asked is one look at the tree.
type asked struct {
	// File, or Pattern with * and **, is what was looked for, relative to the root.
	File    string `json:"file,omitempty"`
	Pattern string `json:"pattern,omitempty"`
	// Found is the SHA-256 of the file's content, or of the names that the
	// pattern gave; "" when nothing could be read.
	Found string `json:"found,omitempty"`
}

// load gives a file of the tree that the reader's own refers to, parsed; nil when it is not there.
func (l *looks) load(rel string) *parsed {
	rel, inside := inTree(rel)
	if !inside {
		return nil
	}
	p, found := l.tree.load(rel), ""
	if p != nil {
		found = p.src.hash
	}
	l.note(asked{File: rel, Found: found})
	return p
}

// has reports whether a file is in the tree, and can be read.
func (l *looks) has(rel string) bool {
	rel, inside := inTree(rel)
	if !inside {
		return false
	}
	found := l.tree.hashOf(rel)
	l.note(asked{File: rel, Found: found})
	return found != ""
}

// text gives a file of the tree as it is; "" when it can't be read.
func (l *looks) text(rel string) string {
	rel, inside := inTree(rel)
	if !inside {
		return ""
	}
	src, err := l.tree.read(rel)
	if err != nil {
		l.note(asked{File: rel})
		return ""
	}
	l.note(asked{File: rel, Found: src.hash}) // of what was read, not of what was there a moment ago
	return src.text
}

// match gives the files of the tree that a pattern names.
func (l *looks) match(pattern string) []string {
	names := l.tree.match(pattern)
	l.note(asked{Pattern: pattern, Found: stableDigest(names...)})
	return names
}

// claim marks a file as read as part of the reader's own.
func (l *looks) claim(rel string) {
	l.claimed = append(l.claimed, rel)
	l.tree.claim(rel, l.file)
}

func (l *looks) note(a asked) {
	if l.noted[a] {
		return
	}
	if l.noted == nil {
		l.noted = make(map[asked]bool)
	}
	l.noted[a] = true
	l.asked = append(l.asked, a)
}

// still reports whether the tree answers as it did.
func (t *tree) still(list []asked) bool {
	for _, a := range list {
		if a.Pattern != "" {
			if stableDigest(t.match(a.Pattern)...) != a.Found {
				return false
			}
		} else if t.hashOf(a.File) != a.Found {
			return false
		}
	}
	return true
}

// hashOf gives the hash of a file's content as it is now, "" when it can't be read.
func (t *tree) hashOf(rel string) string {
	t.mu.Lock()
	hash, known := t.hashes[rel]
	t.mu.Unlock()
	if known {
		return hash
	}
	src, err := t.read(rel)
	if err != nil {
		return "" // not remembered: there is no end to the names of files that are not there
	}
	t.hashed(rel, src.hash)
	return src.hash
}

// hashed keeps the hash of a file that was read, for others that refer to it.
func (t *tree) hashed(rel, hash string) {
	t.mu.Lock()
	t.hashes[rel] = hash
	t.mu.Unlock()
}
