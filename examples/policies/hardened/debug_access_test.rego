package debug_access_test

import data.debug_access as policy

good := {"identity": {"on_call": true}, "context": {"purpose": "debug", "requested_ttl": 30}}

test_allowed if {
	policy.allow with input as good
	policy.limits == {"ttl": 1800} with input as good
}

test_no_lifetime if {
	every ttl in [null, -5, 0, 0.5, 31, false, true, "10", [], {}] {
		not policy.allow with input as json.patch(good, [{"op": "replace", "path": "/context/requested_ttl", "value": ttl}])
	}
}

test_each_condition_is_needed if {
	every path in ["/identity/on_call", "/context/purpose", "/context/requested_ttl"] {
		not policy.allow with input as json.patch(good, [{"op": "remove", "path": path}])
	}
}

test_empty if not policy.allow with input as {}
