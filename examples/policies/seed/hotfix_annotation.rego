package hotfix_annotation

allow {
  input.context.action == "deploy_hotfix"
  input.context.annotation != null
  contains(input.context.annotation, "approved by ticket")
}
