package trust

import (
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// gcpProvider reads a google_iam_workload_identity_pool_provider.
func (m *module) gcpProvider(b *hclsyntax.Block) {
	if b.Type != "resource" || b.Labels[0] != "google_iam_workload_identity_pool_provider" {
		return
	}
	oidc, _ := blocksOf(b.Body, "oidc")
	if len(oidc) == 0 {
		return // AWS or SAML
	}
	p := gcpProvider{file: b.TypeRange.Filename, line: b.TypeRange.Start.Line, pool: m.str(b.Body, "workload_identity_pool_id"), name: m.str(b.Body, "workload_identity_pool_provider_id"),
		issuer: m.str(oidc[0].Body, "issuer_uri"), issuerLine: line(oidc[0], "issuer_uri"), audiences: m.strs(oidc[0].Body, "allowed_audiences"), audienceLine: oidc[0].TypeRange.Start.Line,
		condition: m.str(b.Body, "attribute_condition"), conditionLine: line(b, "attribute_condition"), mapping: make(map[string]string), disabled: m.str(b.Body, "disabled") == "true"}
	if a := b.Body.Attributes["attribute_mapping"]; a != nil {
		v := m.value(a.Expr)
		if p.unknown = !v.IsKnown() || v.IsNull() || !v.CanIterateElements(); !p.unknown {
			for it := v.ElementIterator(); it.Next(); {
				k, e := it.Element()
				if name, ok := scalar(k); ok {
					p.mapping[name], _ = scalar(e)
				}
			}
		}
	}
	m.s.mapProvider(p)
}

// gcpMember reads google_*_iam_member and google_*_iam_binding resources whose members come from a pool.
func (m *module) gcpMember(b *hclsyntax.Block) {
	kind := b.Labels[0]
	if b.Type != "resource" || !strings.HasPrefix(kind, "google_") || !strings.HasSuffix(kind, "_iam_member") && !strings.HasSuffix(kind, "_iam_binding") {
		return
	}
	target := m.serviceAccount(m.str(b.Body, "service_account_id"))
	if target == "" {
		what := strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(kind, "google_"), "_iam_member"), "_iam_binding")
		target = what + " " + firstOf(m.str(b.Body, what), m.str(b.Body, "name"), m.str(b.Body, "bucket"), m.str(b.Body, "project"), b.Labels[1])
	}
	attr := "member"
	if b.Body.Attributes["members"] != nil {
		attr = "members"
	}
	for _, member := range m.strs(b.Body, attr) {
		if strings.HasPrefix(member, "principal") {
			m.s.bind(gcpBinding{file: b.TypeRange.Filename, target: target, role: m.str(b.Body, "role"), member: m.poolIn(member), line: line(b, attr)})
		}
	}
}

// serviceAccount gives the address of a service account that the module makes, else what is written.
func (m *module) serviceAccount(id string) string {
	key, ok := strings.CutPrefix(id, "${google_service_account.")
	if !ok {
		if i := strings.LastIndex(id, "/serviceAccounts/"); i >= 0 {
			return id[i+len("/serviceAccounts/"):]
		}
		return id
	}
	name, _, _ := strings.Cut(strings.TrimSuffix(key, "}"), ".")
	owner, b := m.find("google_service_account." + name)
	if b == nil {
		return id
	}
	return firstOf(owner.str(b.Body, "account_id"), id)
}

// poolIn puts the id of a pool of the module in the place of its computed name.
func (m *module) poolIn(member string) string {
	const mark = "${google_iam_workload_identity_pool."
	i := strings.Index(member, mark)
	if i < 0 {
		return member
	}
	end := strings.IndexByte(member[i:], '}')
	if end < 0 {
		return member
	}
	name, _, _ := strings.Cut(member[i+len(mark):i+end], ".")
	owner, b := m.find("google_iam_workload_identity_pool." + name)
	if b == nil {
		return member
	}
	return member[:i] + "projects/-/locations/global/workloadIdentityPools/" + owner.str(b.Body, "workload_identity_pool_id") + member[i+end+1:]
}

// azure reads the federated credentials of azuread and azurerm.
func (m *module) azure(b *hclsyntax.Block) {
	if b.Type != "resource" {
		return
	}
	name, file, at := firstOf(m.str(b.Body, "display_name"), m.str(b.Body, "name"), b.Labels[1]), b.TypeRange.Filename, b.TypeRange.Start.Line
	switch b.Labels[0] {
	case "azuread_application_federated_identity_credential":
		audiences, aud := m.strs(b.Body, "audiences"), line(b, "audiences")
		m.s.azureCredential(file, m.application(b, name), at, m.str(b.Body, "issuer"), Condition{Claim: "sub", Match: Exact, Values: []string{m.str(b.Body, "subject")}, Line: line(b, "subject")}, audiences, aud)
	case "azurerm_federated_identity_credential":
		m.s.azureCredential(file, m.application(b, name), at, m.str(b.Body, "issuer"), Condition{Claim: "sub", Match: Exact, Values: []string{m.str(b.Body, "subject")}, Line: line(b, "subject")}, m.strs(b.Body, "audience"), line(b, "audience"))
	case "azuread_application_flexible_federated_identity_credential":
		t := Trust{File: file, Line: at, Kind: AzureCredential, Target: Target{"cloud/azure", m.application(b, name)}, Issuer: m.str(b.Body, "issuer"), AudienceLine: line(b, "audience")}
		if a := m.str(b.Body, "audience"); a != "" {
			t.Audiences = []string{a}
		}
		for _, c := range azureExpression(m.str(b.Body, "claims_matching_expression"), line(b, "claims_matching_expression")) {
			t.add(c)
		}
		m.s.add(t)
	}
}

// application names the application or the identity of a credential.
func (m *module) application(b *hclsyntax.Block, otherwise string) string {
	for _, attr := range []string{"application_id", "application_object_id", "parent_id", "user_assigned_identity_id"} {
		id := m.str(b.Body, attr)
		for _, kind := range []string{"azuread_application", "azuread_application_registration", "azurerm_user_assigned_identity"} {
			rest, ok := strings.CutPrefix(id, "${"+kind+".")
			if !ok {
				continue
			}
			name, _, _ := strings.Cut(strings.TrimSuffix(rest, "}"), ".")
			if owner, app := m.find(kind + "." + name); app != nil {
				return firstOf(owner.str(app.Body, "display_name"), owner.str(app.Body, "name"), name)
			}
			return name
		}
		if id != "" && !hole(id) {
			return id[strings.LastIndexByte(id, '/')+1:]
		}
	}
	return otherwise
}

// vault reads a vault_jwt_auth_backend_role.
func (m *module) vault(b *hclsyntax.Block) {
	if b.Type != "resource" || b.Labels[0] != "vault_jwt_auth_backend_role" {
		return
	}
	r := vaultRole{file: b.TypeRange.Filename, line: b.TypeRange.Start.Line, name: m.str(b.Body, "role_name"), mount: m.str(b.Body, "backend"), kind: m.str(b.Body, "role_type"),
		policies: m.strs(b.Body, "token_policies"), audiences: m.strs(b.Body, "bound_audiences"), audienceLine: line(b, "bound_audiences"),
		subject: m.str(b.Body, "bound_subject"), subjectLine: line(b, "bound_subject"), glob: m.str(b.Body, "bound_claims_type") == "glob"}
	if rest, ok := strings.CutPrefix(r.mount, "${vault_jwt_auth_backend."); ok {
		name, _, _ := strings.Cut(strings.TrimSuffix(rest, "}"), ".")
		r.mount = "${vault_jwt_auth_backend." + name + ".path}"
		if owner, backend := m.find("vault_jwt_auth_backend." + name); backend != nil {
			r.mount = firstOf(owner.str(backend.Body, "path"), "jwt")
		}
	}
	for _, kind := range m.kinds["vault_jwt_auth_backend"] {
		if p := firstOf(m.str(kind.Body, "path"), "jwt"); p == r.mount {
			r.issuer = firstOf(m.str(kind.Body, "bound_issuer"), m.str(kind.Body, "oidc_discovery_url"))
		}
	}
	if a := b.Body.Attributes["bound_claims"]; a != nil {
		r.opaque = !m.boundClaims(a.Expr, &r)
	}
	m.s.vaultRole(r)
}

// boundClaims reads a map of claims; several values may stand in one text, between commas.
func (m *module) boundClaims(e hclsyntax.Expression, r *vaultRole) bool {
	if o, ok := e.(*hclsyntax.ObjectConsExpr); ok {
		for _, item := range o.Items {
			k, ok := scalar(m.value(item.KeyExpr))
			if !ok {
				return false
			}
			r.claims = append(r.claims, vaultClaim{k, commas(m.list(item.ValueExpr)), item.KeyExpr.Range().Start.Line})
		}
		return true
	}
	v := m.value(e)
	if !v.IsKnown() || v.IsNull() || !v.CanIterateElements() {
		return false
	}
	for it := v.ElementIterator(); it.Next(); {
		k, val := it.Element()
		name, ok := scalar(k)
		value, also := scalar(val)
		if !ok || !also {
			return false
		}
		r.claims = append(r.claims, vaultClaim{name, commas([]string{value}), e.Range().Start.Line})
	}
	return true
}

// commas opens texts that hold several values, as the provider does.
func commas(list []string) []string {
	var out []string
	for _, s := range list {
		for _, v := range strings.Split(s, ",") {
			if v = strings.TrimSpace(v); v != "" {
				out = append(out, v)
			}
		}
	}
	return out
}
