package plan

// ghKube makes a kubeconfig around Proviso's token, and puts it in the place of
// the one with a key.
func ghKube(j *ghJob, d *draft) error {
	if line, _ := j.mentions("base64", "b64decode"); line > 0 {
		return &whyNot{line, "the job decodes base64, maybe the kubeconfig; what is put in its place must be in the same form"}
	}
	id := d.stepID(j)
	first := len(j.steps)
	if err := j.sameCondition(j.uses(d.item.names())); err != nil {
		return err
	}
	for _, u := range j.uses(d.item.names()) {
		if err := j.replaceRef(u, "${{ steps."+id+".outputs.value }}"); err != nil {
			return err
		}
		first = min(first, u.step)
	}
	if first == len(j.steps) {
		return no(j.node, "the secret is not in the job as it is now")
	}
	d.provisoURL()
	step := []string{
		"name: A kubeconfig whose token lives minutes",
		"id: " + id,
		"shell: bash",
		"env:",
		"  PROVISO_URL: ${{ vars.PROVISO_URL }}",
		"  SERVER: " + d.setting("SERVER", "the URL of the cluster's API server"),
		"  AUTHORITY: " + d.setting("AUTHORITY", "the cluster's certificate authority, base64 of the PEM (certificate-authority-data)"),
		"run: |",
		`  pass="$(proviso token --grant ` + d.item.ID + `)"`,
		`  echo "::add-mask::$pass"`,
		`  config="$(mktemp)"`,
		`  printf '%s' "$AUTHORITY" | base64 -d > "$config.ca"`,
		`  kubectl config --kubeconfig="$config" set-cluster target --server="$SERVER" --certificate-authority="$config.ca" --embed-certs=true`,
		`  kubectl config --kubeconfig="$config" set-credentials job --token="$pass"`,
		`  kubectl config --kubeconfig="$config" set-context target --cluster=target --user=job`,
		`  kubectl config --kubeconfig="$config" use-context target`,
		`  end="$(openssl rand -hex 16)"`,
		`  { echo "value<<$end"; cat "$config"; echo "$end"; } >> "$GITHUB_OUTPUT"`,
		`  rm -f "$config" "$config.ca"`,
	}
	return firstError(j.insertStep(first, step...), j.permit([2]string{"id-token", "write"}))
}

// kubeconfig leaves a kubeconfig around Proviso's token in a file that a variable
// names. The token goes through no command's arguments, which all on the machine see.
func (d *draft) kubeconfig(variable string) []string {
	d.provisoURL()
	server := d.setting("SERVER", "the URL of the cluster's API server")
	authority := d.setting("AUTHORITY", "the cluster's certificate authority, base64 of the PEM (certificate-authority-data)")
	return []string{
		`pass="$(proviso token --grant ` + d.item.ID + `)"`,
		variable + `="$(mktemp)"`,
		"export " + variable,
		`trap 'rm -f "$` + variable + `"' EXIT`,
		`printf '{"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "target", "cluster": {"server": "%s", "certificate-authority-data": "%s"}}], "users": [{"name": "job", "user": {"token": "%s"}}], "contexts": [{"name": "target", "context": {"cluster": "target", "user": "job"}}], "current-context": "target"}' "` + server + `" "` + authority + `" "$pass" > "$` + variable + `"`,
	}
}
