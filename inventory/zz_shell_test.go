package inventory
import ("testing";"fmt")
func TestZZShell(t *testing.T){
 s:="echo -e \"\\e[0Ksection_start:`date +%s`:dd_sts\\r\\e[0KFetch dd-sts token\"\nDD_STS_API_KEY=$(curl -sS -H \"Authorization: Bearer ${DD_STS_OIDC_TOKEN}\" \"https://dd-sts.us1.ddbuild.io/sts/datadog/exchange?policy=dd-trace-py-gitlab\")\nexport DD_API_KEY=$(echo \"$DD_STS_API_KEY\" | jq -re '.api_key')\n"
 for _,c:=range parseShell(s){ fmt.Printf("%d %q assigns=%v from=%v\n",c.line,c.words,c.assigns,c.from!=nil)}
 fmt.Printf("%+v\n",readScript(s,nil))
}
