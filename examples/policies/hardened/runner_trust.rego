# Jobs on the two trusted runners in us-west-2.
#
# Beside the seed's two conditions: an id says something only within its trust
# domain, and the evidence has to be one that can't be copied.
package runner_trust

default allow := false

trusted := {"trusted-runner-1", "trusted-runner-2"}

allow if {
	input.runner.trust_domain == "runners.acme.example"
	input.runner.id in trusted
	input.runner.region == "us-west-2"
	input.runner.attestation == "spiffe-x509"
	input.identity.role == "ci-cd-pipeline"
}
