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
// # Once
//
// A commit claims a replay key, a hash of everything that may happen once only.
// The claim and the decision are one transaction: of any number of requests
// with one key, at once or after a restart, exactly one is recorded as allowed.
// The others are recorded as refused, in the same transaction.
//
// # When the disk fails
//
// While nothing can be written nothing is issued. A full disk, or a lock that
// somebody else holds on the database, passes by itself: the next commit first
// asks the store whether it still holds what the log believes. After any other
// failure nobody can say what the disk holds, and the log takes nothing more
// until the broker is started again and the log has verified its own end.
//
// # Verifying
//
// [VerifyReceipt] proves one decision, [VerifyLog] a whole log: from its store,
// also while a broker writes it, from an [Export], or over HTTP. Both need the
// log's public key (file log.vkey) and nothing else. What they find wrong is a
// [Finding] with a code and the first entry concerned. What a log can't show by
// itself is that its end, or with its key all of it, was replaced: for that the
// auditor keeps checkpoints and receipts from before, and hands them in.
//
// # Format
//
// The log is a tree of RFC 6962 over entries in canonical JSON (RFC 8785), one
// [Entry] each. It is laid out as C2SP tlog-tiles: hash tiles of height 8,
// entry bundles with two-byte lengths, and a checkpoint signed as a C2SP
// signed note with Ed25519. Any tool that reads those formats reads this log.
// A [Receipt] carries an entry and a C2SP tlog-proof of it. The store keeps with
// each commit the checkpoint that was signed for it, so that an alteration is
// found to within one commit.
//
// Tokens and keys appear in an entry as hashes only; no field has room for a
// secret. The package knows no domain: what identity, runner, facts and policy
// said are document values to it, so that the record outlives their changes.
package audit
