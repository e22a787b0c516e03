// Package trust reads the other end of a federation: the files that say which
// identity tokens a cloud, a vault, a cluster or Proviso itself accepts, and
// for what. AWS role trust policies, Google's workload identity pools, Azure's
// federated credentials, JWT roles of Vault and OpenBao, octo-sts policies,
// Kubernetes' authentication configuration and Proviso's own configuration all
// become one value: a Trust, with an issuer, audiences, conditions over claims,
// and the line of each.
//
// # What is evaluated
//
// Terraform is read statically: literals, heredocs, locals, variables with a
// default or a value in terraform.tfvars, for_each over what is known,
// jsonencode, and modules of the same tree with what each caller gives them and
// their outputs. What only an apply can know stays in a value as ${...}, and is
// listed in the Trust's Unresolved: it is never taken as a match, nor as a
// refusal.
//
// # What is never done
//
// Nothing is executed, no module, provider or file outside of the given tree is
// opened, and no network is asked. Files are hostile until they are read: size,
// nesting, the growth of locals and the number of instances have bounds, and
// what is beyond them is reported with its line, not dropped.
//
// # Matching
//
// Accepts compares a Trust with what is known of a job's identity token and
// answers yes, no or unknown. It knows nothing of CI systems: package inventory
// says what a job's claims can be, and makes findings of the answers.
package trust
