# The critical service: with an approved ticket that is about this service.
#
# Beside the seed's three conditions: an approved ticket for another service
# doesn't do.
package ticket_approval

default allow := false

allow if {
	input.context.service == "critical"
	input.context.ticket_approved == true
	input.context.ticket.service == input.context.service
	input.identity.role == "ci-cd-pipeline"
}

limits := {"ttl": 900}
