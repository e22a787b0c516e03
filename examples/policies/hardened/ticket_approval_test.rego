package ticket_approval_test

import data.ticket_approval as policy

good := {
	"identity": {"role": "ci-cd-pipeline"},
	"context": {"service": "critical", "ticket_approved": true, "ticket": {"service": "critical"}},
}

test_allowed if policy.allow with input as good

test_ticket_for_another_service if {
	not policy.allow with input as json.patch(good, [{"op": "replace", "path": "/context/ticket/service", "value": "blog"}])
}

test_only_true_is_approved if {
	every value in [false, null, "true", "yes", 1] {
		not policy.allow with input as json.patch(good, [{"op": "replace", "path": "/context/ticket_approved", "value": value}])
	}
}

test_each_condition_is_needed if {
	every path in ["/identity/role", "/context/service", "/context/ticket_approved", "/context/ticket"] {
		not policy.allow with input as json.patch(good, [{"op": "remove", "path": path}])
	}
}

test_empty if not policy.allow with input as {}
