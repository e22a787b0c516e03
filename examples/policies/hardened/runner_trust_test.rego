package runner_trust_test

import data.runner_trust as policy

good := {
	"identity": {"role": "ci-cd-pipeline"},
	"runner": {
		"trust_domain": "runners.acme.example", "id": "trusted-runner-1",
		"region": "us-west-2", "attestation": "spiffe-x509",
	},
}

test_allowed if {
	every id in ["trusted-runner-1", "trusted-runner-2"] {
		policy.allow with input as json.patch(good, [{"op": "replace", "path": "/runner/id", "value": id}])
	}
}

test_same_id_in_another_trust_domain if {
	not policy.allow with input as json.patch(good, [{"op": "replace", "path": "/runner/trust_domain", "value": "runners.evil.example"}])
}

test_similar_id if {
	every id in ["trusted-runner-11", "trusted-runner-", "Trusted-runner-1", "", null] {
		not policy.allow with input as json.patch(good, [{"op": "replace", "path": "/runner/id", "value": id}])
	}
}

test_no_runner if not policy.allow with input as json.patch(good, [{"op": "remove", "path": "/runner"}])

test_empty if not policy.allow with input as {}
