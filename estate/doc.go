// Package estate brings the pipeline definitions of many repositories onto
// this machine, so that package inventory can read them as one tree: from a
// list of git URLs, or from a whole organisation of GitHub or group of GitLab.
// It is the only part of the inventory that opens a connection, and it opens
// only those that its caller named.
//
// It promises four things. A token comes from the environment, goes to the one
// host that it is for in a header, and appears in no URL, argument, file, error
// or log. Nothing of a repository is executed: git runs without hooks, filters,
// helpers, prompts or a work tree, and only files that can be definitions are
// written, as plain files below the cache. Every answer of a server is bounded
// in time, size, pages and redirects, and a server that asks to wait is obeyed.
// What could not be fetched is named in the result; one bad repository never
// ends the run, and a run that was interrupted goes on where it stopped.
package estate
