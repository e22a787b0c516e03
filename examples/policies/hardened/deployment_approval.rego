# Deployments to production: from main, of a commit that the broker itself found
# signed and on that branch, by the pipeline, in office hours.
#
# Beside the seed's six conditions: pull requests are out by name, the commit
# has to be on the branch that the token names, "0:00" is no time of day, and a
# weekend is no office day.
package deployment_approval

default allow := false

allow if {
	input.identity.role == "ci-cd-pipeline"
	input.identity.pull_request == false
	input.context.branch == "main"
	input.context.commit_signed == true
	input.context.commit_on_branch == true
	input.context.environment == "production"
	office_hours
}

office_hours if {
	input.context.weekday in {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday"}
	is_string(input.context.time)
	regex.match(`^([01][0-9]|2[0-3]):[0-5][0-9]$`, input.context.time)
	input.context.time >= "09:00"
	input.context.time <= "17:00"
}

deny contains "deployments are frozen" if input.context.freeze == true

limits := {"ttl": 900}
