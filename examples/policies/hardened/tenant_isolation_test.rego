package tenant_isolation_test

import data.tenant_isolation as policy

of(job, resource) := {"identity": {"tenant": job, "pull_request": false}, "resource": {"tenant": resource}}

test_same if policy.allow with input as of("acme", "acme")

test_other if not policy.allow with input as of("acme", "globex")

test_nobody if {
	every nobody in [null, "", false, 0, {}, []] {
		not policy.allow with input as of(nobody, nobody)
	}
}

test_case_counts if not policy.allow with input as of("acme", "Acme")

test_pull_request if not policy.allow with input as json.patch(of("acme", "acme"), [{"op": "replace", "path": "/identity/pull_request", "value": true}])

test_empty if not policy.allow with input as {}
