// Package identity answers the first question of the flow: which job asks? It
// takes the OIDC token that a CI platform signed for the job, believes nothing
// of it until the signature holds, and gives a [Job]: one form for all
// platforms, so that a policy reads the same words whoever runs the pipeline.
//
// All that is known of a platform is one row of a table: what its issuers look
// like and whether strangers share them, how its audience comes about, which
// claim proves that the token is a job's, which triggers run reviewed code,
// where each normalised value comes from, and which claims have to agree. No
// platform has code of its own beyond its row, and the platform "generic" is a
// row that the operator writes.
//
// A token passes these checks in this order, and the first that fails is the
// refusal:
//
//  1. form: size, three segments, strict base64url and JSON, a known header
//     (package jose). Costs nothing but the bytes.
//  2. issuer: the iss of the unverified payload selects a configured issuer by
//     equality of bytes, and is used for nothing else. An unknown issuer is
//     refused before anything is fetched.
//  3. signature: algorithm from the issuer's list, kid, key from the issuer's
//     key set (package keyset).
//  4. time: exp, iat and nbf are integers; expired means expired, without
//     leeway; iat and nbf may lie [ClockSkew] ahead; the age counts from iat
//     and is the operator's to bound, whatever exp says.
//  5. audience: exactly one, and exactly the wanted one.
//  6. a job: the claims that only a job's token has. Issuers sign other tokens
//     with the same key and the same audience.
//  7. pins: every claim that require names has one of its values.
//  8. values: every claim that is read has its type and a harmless form.
//  9. trigger: an allow-list of events. Pull requests, forks and debug sessions
//     are on none of them by default.
//  10. agreement: claims that say the same thing twice say the same.
//
// Absence never widens: a claim that is missing, null or "" is absent from the
// identity, and what a check needs must be there. The subject (sub) is never
// taken apart: its form differs from repository to repository, and whoever may
// name a branch may write into it. Where a platform's default form is known the
// package composes it from the other claims and compares, which can only refuse.
//
// Up to and including the signature a refusal quotes nothing of the payload.
// After it the claims are facts about the caller itself, so a refusal names the
// claim, the value that was found, the value that was wanted, and what to do.
package identity
