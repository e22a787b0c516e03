// Package audit is the record of decisions: a Merkle log that nobody can alter
// unseen, the warrants that only a recorded decision gives, and the receipts
// that prove a decision offline.
//
// # Order
//
// A decision is written down before anything is minted. [Log.Commit] makes it
// durable, together with the replay key that lets a job's token be used once,
// and only then returns a [Warrant]; a credential is minted from the [Terms]
// that the warrant gives up, exactly once. [Log.Refuse] makes a refusal
// durable. If the log can't be written there is no warrant, so there is no
// credential.
//
// A caller that gives up waiting gets no warrant, but its decision may already
// be on the way to the disk. The record then says "allowed" for a credential
// that nobody holds. That is the safe direction: every credential has its
// record, not every record has its credential. The replay key stays claimed.
//
// # Format
//
// The log is a tree of RFC 6962 over entries in canonical JSON (RFC 8785), one
// [Entry] each. It is laid out as C2SP tlog-tiles: hash tiles of height 8,
// entry bundles with two-byte lengths, and a checkpoint signed as a C2SP
// signed note with Ed25519. Any tool that reads those formats reads this log.
// A [Receipt] carries an entry and a C2SP tlog-proof of it.
//
// Tokens and keys appear in an entry as hashes only; no field has room for a
// secret. The package knows no domain: what identity, runner, facts and policy
// said are document values to it, so that the record outlives their changes.
package audit
