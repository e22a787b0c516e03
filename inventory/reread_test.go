package inventory

import "testing"

// A patch is judged with what the pipeline refers to, which is read from the tree.
func TestRereadSeesTheTree(t *testing.T) {
	root := t.TempDir()
	const file = "r/.github/workflows/w.yml"
	text := "on: push\njobs:\n  a:\n    uses: ./.github/workflows/called.yml\n  b:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: ./.github/actions/login\n        with: {key: \"${{ secrets.KEY }}\"}\n"
	for rel, text := range map[string]string{
		file:                                 text,
		"r/.github/workflows/called.yml":     "on: workflow_call\njobs: {}\n",
		"r/.github/actions/login/action.yml": "inputs: {key: {}}\nruns:\n  using: composite\n  steps:\n    - shell: bash\n      run: npm publish\n      env:\n        NODE_AUTH_TOKEN: ${{ inputs.key }}\n",
	} {
		if err := writeTree(root, rel, text); err != nil {
			t.Fatal(err)
		}
	}
	resource := func(root string) string {
		paths, ok := Reread(root, file, text)
		if !ok {
			t.Fatalf("%s can't be read again", file)
		}
		for _, p := range paths {
			if p.Credential.Name == "KEY" {
				return p.Resource.Kind
			}
		}
		return ""
	}
	if got := resource(root); got != "registry/npm" {
		t.Errorf("with its tree: %q", got)
	}
	if got := resource(""); got == "registry/npm" {
		t.Errorf("without a tree: %q", got)
	}
}
