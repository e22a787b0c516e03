package debug_access

allow {
  input.identity.on_call == true
  input.context.requested_ttl <= 30
  input.context.purpose == "debug"
}
