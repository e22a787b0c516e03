package inventory

import "regexp"

// secretFormat is one well-known form of a credential in clear.
type secretFormat struct {
	// name is what people call it: "a GitHub personal access token".
	name string
	// words: one of them stands in every such value; only lines that hold one are searched.
	words []string
	// match finds the value; its first group, when it has one, is the value.
	match *regexp.Regexp
	// severity is what it costs when it is real.
	severity Severity
	// loose forms need a value that looks random; the others are known by their prefix or checksum.
	loose bool
}

// secretFormats are the forms that vendors document, or that are widely known.
// A prefix makes a find nearly certain; forms without one (32 hex digits) are
// left to the entropy of values whose key says that they are secret.
var secretFormats = []secretFormat{
	{"a private key", []string{"PRIVATE KEY"}, regexp.MustCompile(`-----BEGIN (?:(?:RSA|EC|DSA|OPENSSH|ENCRYPTED|PGP) )?PRIVATE KEY(?: BLOCK)?-----`), SeverityHigh, false},
	{"an age secret key", []string{"AGE-SECRET-KEY-"}, regexp.MustCompile(`AGE-SECRET-KEY-1[0-9A-Z]{58}`), SeverityHigh, false},
	{"an AWS access key id", []string{"AKIA", "ASIA"}, regexp.MustCompile(`\b(?:AKIA|ASIA)[A-Z2-7]{16}\b`), SeverityMedium, true},
	{"a GitHub personal access token", []string{"ghp_"}, regexp.MustCompile(`\bghp_[A-Za-z0-9]{36}\b`), SeverityHigh, true},
	{"a GitHub fine-grained token", []string{"github_pat_"}, regexp.MustCompile(`\bgithub_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}\b`), SeverityHigh, true},
	{"a GitHub app or OAuth token", []string{"gho_", "ghu_", "ghs_", "ghr_"}, regexp.MustCompile(`\bgh[ousr]_[A-Za-z0-9]{36,255}\b`), SeverityHigh, true},
	{"a GitLab token", []string{"glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "glft-", "glsoat-", "glagent-", "glimt-", "gloas-", "glffct-"}, regexp.MustCompile(`\bgl(?:pat|dt|rt|cbt|ptt|ft|soat|agent|imt|oas|ffct)-[A-Za-z0-9_-]{20,64}`), SeverityHigh, true},
	{"a Bitbucket or Atlassian API token", []string{"ATATT3", "ATCTT3", "ATBB"}, regexp.MustCompile(`\b(?:ATATT3|ATCTT3|ATBB)[A-Za-z0-9_=-]{24,250}`), SeverityHigh, true},
	{"an Azure DevOps token", []string{"AZDO"}, regexp.MustCompile(`\b[A-Za-z0-9]{76}AZDO[A-Za-z0-9]{4}\b`), SeverityHigh, true},
	{"an Azure client secret", []string{"Q~"}, regexp.MustCompile(`\b[A-Za-z0-9_~.-]{3}[78]Q~[A-Za-z0-9_~.-]{31,34}`), SeverityHigh, true},
	{"an Azure storage key", []string{"AccountKey="}, regexp.MustCompile(`AccountKey=([A-Za-z0-9+/]{86}==)`), SeverityHigh, true},
	{"a Google API key", []string{"AIza"}, regexp.MustCompile(`\bAIza[0-9A-Za-z_-]{35}`), SeverityMedium, true},
	{"a Google OAuth client secret", []string{"GOCSPX-"}, regexp.MustCompile(`\bGOCSPX-[A-Za-z0-9_-]{28}`), SeverityHigh, true},
	{"a Google OAuth access token", []string{"ya29."}, regexp.MustCompile(`\bya29\.[A-Za-z0-9_-]{60,}`), SeverityMedium, true},
	{"an npm token", []string{"npm_"}, regexp.MustCompile(`\bnpm_[A-Za-z0-9]{36}\b`), SeverityHigh, true},
	{"a PyPI token", []string{"pypi-"}, regexp.MustCompile(`\bpypi-AgE[A-Za-z0-9_-]{60,}`), SeverityHigh, true},
	{"a RubyGems key", []string{"rubygems_"}, regexp.MustCompile(`\brubygems_[0-9a-f]{48}\b`), SeverityHigh, true},
	{"a crates.io token", []string{"cio"}, regexp.MustCompile(`\bcio[A-Za-z0-9]{32}\b`), SeverityHigh, true},
	{"a NuGet key", []string{"oy2"}, regexp.MustCompile(`\boy2[a-z0-9]{43}\b`), SeverityHigh, true},
	{"a Docker Hub token", []string{"dckr_"}, regexp.MustCompile(`\bdckr_[po]at_[A-Za-z0-9_-]{20,64}`), SeverityHigh, true},
	{"an Artifactory key", []string{"AKCp"}, regexp.MustCompile(`\bAKCp[A-Za-z0-9]{60,90}\b`), SeverityHigh, true},
	{"a Slack token", []string{"xoxa-", "xoxb-", "xoxe-", "xoxo-", "xoxp-", "xoxr-", "xoxs-"}, regexp.MustCompile(`\bxox[abeoprs]-[A-Za-z0-9-]{20,250}`), SeverityHigh, true},
	{"a Slack app token", []string{"xapp-"}, regexp.MustCompile(`\bxapp-\d-[A-Za-z0-9-]{30,250}`), SeverityHigh, true},
	{"a Slack webhook", []string{"hooks.slack.com"}, regexp.MustCompile(`hooks\.slack\.com/(?:services|workflows|triggers)/T?[A-Za-z0-9]{6,}/[A-Za-z0-9]{6,}/([A-Za-z0-9]{16,})`), SeverityMedium, true},
	{"a Slack token of a Travis notification", []string{"slack:"}, regexp.MustCompile(`slack:\s*["']?[a-z0-9-]+:([A-Za-z0-9]{24})\b`), SeverityMedium, true},
	{"a Discord webhook", []string{"/api/webhooks/"}, regexp.MustCompile(`discord(?:app)?\.com/api/webhooks/\d{10,}/([A-Za-z0-9_-]{50,})`), SeverityMedium, true},
	{"a Teams webhook", []string{"webhook.office.com"}, regexp.MustCompile(`webhook\.office\.com/webhookb2/[^\s"']{20,}/IncomingWebhook/([0-9a-f]{32})`), SeverityMedium, true},
	{"a Telegram bot token", []string{":AA"}, regexp.MustCompile(`\b\d{8,10}:AA[A-Za-z0-9_-]{33}\b`), SeverityMedium, true},
	{"a Stripe live key", []string{"k_live_"}, regexp.MustCompile(`\b[rs]k_live_[0-9a-zA-Z]{24,100}\b`), SeverityHigh, true},
	{"a SendGrid key", []string{"SG."}, regexp.MustCompile(`\bSG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}\b`), SeverityHigh, true},
	{"a Mailgun key", []string{"key-"}, regexp.MustCompile(`\bkey-[0-9a-f]{32}\b`), SeverityMedium, true},
	{"a Shopify token", []string{"shpat_", "shpca_", "shppa_", "shpss_"}, regexp.MustCompile(`\bshp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}\b`), SeverityHigh, true},
	{"a Heroku key", []string{"HRKU-"}, regexp.MustCompile(`\bHRKU-[A-Za-z0-9_-]{36,64}`), SeverityHigh, true},
	{"a DigitalOcean token", []string{"dop_v1_", "doo_v1_", "dor_v1_"}, regexp.MustCompile(`\bdo[opr]_v1_[a-f0-9]{64}\b`), SeverityHigh, true},
	{"a Vault token", []string{"hvs.", "hvb.", "hvr."}, regexp.MustCompile(`\bhv[sbr]\.[A-Za-z0-9_-]{24,}`), SeverityHigh, true},
	{"a Terraform Cloud token", []string{".atlasv1."}, regexp.MustCompile(`\b[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_-]{60,}`), SeverityHigh, true},
	{"a Pulumi token", []string{"pul-"}, regexp.MustCompile(`\bpul-[0-9a-f]{40}\b`), SeverityHigh, true},
	{"a Databricks token", []string{"dapi"}, regexp.MustCompile(`\bdapi[0-9a-f]{32}\b`), SeverityHigh, true},
	{"a Doppler token", []string{"dp.pt.", "dp.st.", "dp.ct.", "dp.sa.", "dp.scim.", "dp.audit."}, regexp.MustCompile(`\bdp\.(?:pt|st|ct|sa|scim|audit)\.(?:[a-z0-9_-]+\.)?[A-Za-z0-9]{40,44}\b`), SeverityHigh, true},
	{"a 1Password service account token", []string{"ops_"}, regexp.MustCompile(`\bops_eyJ[A-Za-z0-9_=-]{100,}`), SeverityHigh, true},
	{"an OpenAI key", []string{"sk-"}, regexp.MustCompile(`\bsk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{16,}T3BlbkFJ[A-Za-z0-9_-]{16,}`), SeverityHigh, true},
	{"an Anthropic key", []string{"sk-ant-"}, regexp.MustCompile(`\bsk-ant-[a-z]+\d\d-[A-Za-z0-9_-]{80,}`), SeverityHigh, true},
	{"a Hugging Face token", []string{"hf_"}, regexp.MustCompile(`\bhf_[A-Za-z]{34}\b`), SeverityHigh, true},
	{"a Grafana token", []string{"glsa_", "glc_eyJ"}, regexp.MustCompile(`\b(?:glsa_[A-Za-z0-9]{32}_[a-f0-9]{8}|glc_eyJ[A-Za-z0-9+/=]{40,})`), SeverityHigh, true},
	{"a New Relic key", []string{"NRAK-"}, regexp.MustCompile(`\bNRAK-[A-Z0-9]{27}\b`), SeverityMedium, true},
	{"a Sentry token", []string{"sntry"}, regexp.MustCompile(`\bsntry(?:s_eyJ[A-Za-z0-9+/=_]{60,}|u_[0-9a-f]{64})`), SeverityMedium, true},
	{"a SonarQube token", []string{"sqp_", "squ_", "sqa_"}, regexp.MustCompile(`\bsq[pua]_[0-9a-f]{40}\b`), SeverityMedium, true},
	{"a Tailscale key", []string{"tskey-"}, regexp.MustCompile(`\btskey-(?:auth|api|client|scim|webhook)-[A-Za-z0-9]+-[A-Za-z0-9]{20,}`), SeverityHigh, true},
	{"a Fly token", []string{"FlyV1 "}, regexp.MustCompile(`\bFlyV1 fm[12][ar]?_[A-Za-z0-9+/=_-]{60,}`), SeverityHigh, true},
	{"a Netlify token", []string{"nfp_"}, regexp.MustCompile(`\bnfp_[A-Za-z0-9]{36}\b`), SeverityHigh, true},
	{"a Buildkite token", []string{"bkua_", "bkct_", "bkat_"}, regexp.MustCompile(`\bbk(?:ua|ct|at)_[0-9a-f]{40}\b`), SeverityHigh, true},
	{"a CircleCI token", []string{"CCIPAT_", "CCIPRJ_"}, regexp.MustCompile(`\bCCI(?:PAT|PRJ)_[A-Za-z0-9]{10,}_[0-9a-f]{40}\b`), SeverityHigh, true},
	{"a Supabase token", []string{"sbp_"}, regexp.MustCompile(`\bsbp_[0-9a-f]{40}\b`), SeverityHigh, true},
	{"a PlanetScale credential", []string{"pscale_"}, regexp.MustCompile(`\bpscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.=-]{32,64}`), SeverityHigh, true},
	{"a Linear key", []string{"lin_api_"}, regexp.MustCompile(`\blin_api_[A-Za-z0-9]{40}\b`), SeverityMedium, true},
	{"a signed token (JWT)", []string{"eyJ"}, regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{12,}\.eyJ[A-Za-z0-9_-]{12,}\.[A-Za-z0-9_-]{20,}`), SeverityMedium, true},
	{"a password in a URL", []string{"://"}, regexp.MustCompile(`\b[a-z][a-z0-9+.-]{1,20}://[A-Za-z0-9._%+-]{1,80}:([^\s:/@"'<>{}$()*\\]{8,200})@[A-Za-z0-9.-]+`), SeverityMedium, true},
	{"an authorization header", []string{"uthorization"}, regexp.MustCompile(`(?i)authorization["']?\s*[:=]\s*["']?(?:bearer|basic|token)\s+([A-Za-z0-9+/=._~-]{20,})`), SeverityMedium, true},
}
