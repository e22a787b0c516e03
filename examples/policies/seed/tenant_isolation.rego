package tenant_isolation

allow {
  input.identity.tenant == input.resource.tenant
}
