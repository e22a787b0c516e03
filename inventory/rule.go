package inventory

// Rule is one kind of finding. Its texts are the documentation: docs/inventory.md,
// the SARIF report and the HTML page print them.
type Rule struct {
	// Name names the rule in findings, baselines and ignores: "fork-reachable-secret".
	Name string
	// Title says in a few words what is wrong.
	Title string
	// What says what is looked for, and why it matters.
	What string
	// Remedy says what to do about it in general; a finding's Fix says it for its place.
	Remedy string
	// References are the controls concerned: OWASP Top 10 CI/CD Security Risks, and sections of NIST SP 800-204D.
	References []string
	// Systems are the CI systems that the rule can say something about; empty is all of them.
	Systems []CI
	// check looks at one file; nil when the finding is made while files are read.
	check func(*subject)
}

// The controls that rules refer to.
const (
	flowControl       = "OWASP CICD-SEC-1"     // insufficient flow control mechanisms
	accessManagement  = "OWASP CICD-SEC-2"     // inadequate identity and access management
	dependencyAbuse   = "OWASP CICD-SEC-3"     // dependency chain abuse
	poisonedPipeline  = "OWASP CICD-SEC-4"     // poisoned pipeline execution
	pipelineAccess    = "OWASP CICD-SEC-5"     // insufficient pipeline-based access controls
	credHygiene       = "OWASP CICD-SEC-6"     // insufficient credential hygiene
	systemConfig      = "OWASP CICD-SEC-7"     // insecure system configuration
	thirdParties      = "OWASP CICD-SEC-8"     // ungoverned usage of third-party services
	artifactIntegrity = "OWASP CICD-SEC-9"     // improper artifact integrity validation
	visibility        = "OWASP CICD-SEC-10"    // insufficient logging and visibility
	nistGoals         = "NIST SP 800-204D 4.1" // broad security goals for CI/CD pipelines: least privilege, roles
	nistBuild         = "NIST SP 800-204D 5.1.1"
	nistPullPush      = "NIST SP 800-204D 5.1.2"
	nistCommits       = "NIST SP 800-204D 5.1.4"
	nistDeploy        = "NIST SP 800-204D 5.2"
)

// Rules lists all rules, in the order of the documentation: what an outsider
// can do first, then what a job can do, then what merely lives too long.
func Rules() []Rule {
	return append([]Rule{
		ruleForkCode,
		ruleForkReachable,
		ruleScriptInjection,
		ruleForkRunner,
		ruleAllSecrets,
		ruleSecretsInherit,
		ruleDynamicSecret,
		ruleWorkflowSecret,
		rulePrintedSecret,
		ruleBuildArg,
		ruleUnpinnedCode,
		ruleRemoteInclude,
		ruleBroadToken,
		rulePersistedToken,
		ruleSystemToken,
		ruleUnknownProtection,
		ruleAmbientIdentity,
		ruleIdentityUnused,
		ruleKeysBesideRole,
		ruleStaticCloudKey,
		ruleRegistryToken,
		ruleSecretZero,
		ruleForgeToken,
		ruleLongLived,
		ruleSecretInFile,
		ruleCouldNotRead,
	}, trustRules()...)
}

// RuleOf gives a rule by its name; one that others add has only its name.
func RuleOf(name string) Rule {
	for _, r := range Rules() {
		if r.Name == name {
			return r
		}
	}
	return Rule{Name: name, Title: name}
}
