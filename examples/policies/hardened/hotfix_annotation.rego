# Hotfixes: with an approved ticket, which the annotation names.
#
# The seed looks for the words "approved by ticket" in a text that the job writes
# by itself, and "NOT approved by ticket" has them too. Here the ticket system is
# asked, and the annotation has to say which ticket it is about.
package hotfix_annotation

default allow := false

allow if {
	input.identity.role == "ci-cd-pipeline"
	input.context.action == "deploy_hotfix"
	input.context.ticket_approved == true
	input.context.ticket_id != ""
	contains(input.context.annotation, input.context.ticket_id)
}

limits := {"ttl": 600}
