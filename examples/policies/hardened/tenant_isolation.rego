# A tenant's jobs get at that tenant's resources.
#
# Beside the seed's condition: two tenants that are both null, or both "", are
# nobody's and not the same.
package tenant_isolation

default allow := false

allow if {
	is_string(input.identity.tenant)
	input.identity.tenant != ""
	input.identity.tenant == input.resource.tenant
	input.identity.pull_request == false
}
