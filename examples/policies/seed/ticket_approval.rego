package ticket_approval

allow {
  input.context.service == "critical"
  input.context.ticket_approved == true
  input.identity.role == "ci-cd-pipeline"
}
