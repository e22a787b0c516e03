package deployment_approval_test

import data.deployment_approval as policy

good := {
	"identity": {"role": "ci-cd-pipeline", "pull_request": false},
	"context": {
		"branch": "main", "commit_signed": true, "commit_on_branch": true, "environment": "production",
		"weekday": "Tuesday", "time": "12:30", "freeze": false,
	},
}

test_allowed if policy.allow with input as good

test_at_nine_and_at_five if {
	every time in ["09:00", "17:00"] {
		policy.allow with input as json.patch(good, [{"op": "replace", "path": "/context/time", "value": time}])
	}
}

test_no_time_of_day if {
	every time in ["0:00", "1", "9:30", "12:60", "24:00", "", null, 1230] {
		not policy.allow with input as json.patch(good, [{"op": "replace", "path": "/context/time", "value": time}])
	}
}

test_weekend if not policy.allow with input as json.patch(good, [{"op": "replace", "path": "/context/weekday", "value": "Sunday"}])

test_each_condition_is_needed if {
	every path in [
		"/identity/role", "/identity/pull_request", "/context/branch", "/context/commit_signed",
		"/context/commit_on_branch", "/context/environment", "/context/weekday", "/context/time",
	] {
		not policy.allow with input as json.patch(good, [{"op": "remove", "path": path}])
	}
}

test_frozen if {
	count(policy.deny) == 1 with input as json.patch(good, [{"op": "replace", "path": "/context/freeze", "value": true}])
}

test_empty if not policy.allow with input as {}
