package deployment_approval

allow {
  input.identity.role == "ci-cd-pipeline"
  input.context.branch == "main"
  input.context.commit_signed == true
  input.context.environment == "production"
  input.context.time >= "09:00"
  input.context.time <= "17:00"
}
