package runner_trust

allow {
  input.runner.id in ["trusted-runner-1", "trusted-runner-2"]
  input.runner.region == "us-west-2"
}
