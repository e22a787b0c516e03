package hotfix_annotation_test

import data.hotfix_annotation as policy

good := {
	"identity": {"role": "ci-cd-pipeline"},
	"context": {
		"action": "deploy_hotfix", "ticket_approved": true,
		"ticket_id": "OPS-7", "annotation": "outage in checkout, see OPS-7",
	},
}

test_allowed if policy.allow with input as good

test_words_are_no_approval if {
	every text in ["approved by ticket", "NOT approved by ticket", "approved by ticket OPS-8"] {
		not policy.allow with input as json.patch(good, [{"op": "replace", "path": "/context/annotation", "value": text}])
	}
}

test_only_true_is_approved if {
	every value in [false, null, "true", 1] {
		not policy.allow with input as json.patch(good, [{"op": "replace", "path": "/context/ticket_approved", "value": value}])
	}
}

test_each_condition_is_needed if {
	every path in [
		"/identity/role", "/context/action", "/context/ticket_approved",
		"/context/ticket_id", "/context/annotation",
	] {
		not policy.allow with input as json.patch(good, [{"op": "remove", "path": path}])
	}
}

test_empty if not policy.allow with input as {}
