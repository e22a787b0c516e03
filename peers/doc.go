// Package peers holds the tests that need other people's real programs: today
// SPIRE, the reference implementation of SPIFFE. They are a module of their own
// because building those programs takes minutes and hundreds of modules, which
// neither a user of Proviso nor its ordinary tests should pay for. Run them with
// `make peers-test`: the first run builds SPIRE from its Go module into a cache,
// later runs take under a minute.
//
// What they hold is what no fake of ours can: that SPIRE's SVIDs, bundles,
// Workload API and federation endpoints are what we take them for, while its
// identities rotate and its server and agent restart. What they record
// (peers/record) serves the ordinary tests as vectors, so that a change of ours
// is checked against the real thing at every run.
package peers
