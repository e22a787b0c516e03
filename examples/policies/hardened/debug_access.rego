# Debug access for who is on call: half an hour at most.
#
# Beside the seed's three conditions: the lifetime is a whole number of minutes
# from 1 to 30, so null, -5, false and "forever" don't pass as "at most 30"; and
# the policy limits what is granted, whatever is asked for.
package debug_access

default allow := false

allow if {
	input.identity.on_call == true
	input.context.purpose == "debug"
	minutes <= 30
}

minutes := n if {
	n := input.context.requested_ttl
	is_number(n)
	n == floor(n)
	n >= 1
}

limits := {"ttl": minutes * 60}
