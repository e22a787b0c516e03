package facts_test

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/proviso-ci/proviso/facts"
	"github.com/proviso-ci/proviso/internal/document"
)

func TestTemplateExpansion(t *testing.T) {
	const issue = "https://tickets.example/issue/{intent.ticket_id}?fields=status"
	for _, c := range []struct {
		template, name, value, want string // "" = refused
	}{
		{issue, "intent.ticket_id", "OPS-123", "https://tickets.example/issue/OPS-123?fields=status"},
		{issue, "intent.ticket_id", "", ""},
		{issue, "intent.ticket_id", "..", ""},
		{issue, "intent.ticket_id", "../admin", ""},
		{issue, "intent.ticket_id", "OPS-1/../../admin", ""},
		{issue, "intent.ticket_id", "OPS-1?fields=all", ""},
		{issue, "intent.ticket_id", "OPS-1#x", ""},
		{issue, "intent.ticket_id", "OPS%2f1", ""},
		{issue, "intent.ticket_id", "OPS 1", ""},
		{issue, "intent.ticket_id", "OPS-1\r\nX: y", ""},
		{issue, "intent.ticket_id", "ÖPS-1", ""},
		{issue, "intent.ticket_id", "-x", ""},
		{issue, "intent.ticket_id", ".x", ""},
		{issue, "intent.ticket_id", strings.Repeat("1", 201), ""},
		{"https://git.example/{identity.repository}.git", "identity.repository", "acme/shipping", "https://git.example/acme/shipping.git"},
		{"https://git.example/{identity.repository}.git", "identity.repository", "acme//shipping", ""},
		{"https://git.example/{identity.repository}.git", "identity.repository", "acme/../shipping", ""},
		{"https://git.example/{identity.repository}.git", "identity.repository", "https://git.example/a/b", ""},
		{"https://x.example/b/{identity.branch}/y", "identity.branch", "feature/a b", "https://x.example/b/feature%2Fa%20b/y"},
		{"https://x.example/b/{identity.branch}/y", "identity.branch", "feature/../x", ""},
		{"https://x.example/?repo={identity.repository}&x=1", "identity.repository", "acme/shipping", "https://x.example/?repo=acme%2Fshipping&x=1"},
		{"https://x.example/?actor={identity.actor}", "identity.actor", "a+b@c=d", "https://x.example/?actor=a%2Bb%40c%3Dd"},
	} {
		got, err := facts.ExpandURL(c.template, map[string]string{c.name: c.value})
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s with %q: %q, %v; want %q", c.template, c.value, got, err, c.want)
		}
		if err != nil && !strings.Contains(err.Error(), "template_value") {
			t.Errorf("%q: %v has another code", c.value, err)
		}
	}
}

func TestTemplateRefused(t *testing.T) {
	for _, text := range []string{
		"", "tickets", "/issue/{intent.ticket_id}", "ftp://x.example/{runner.id}", "http://x.example/",
		"https://{identity.repository}/x", "https://x.example:{runner.id}/x", "https://{runner.id}.example/", "{runner.id}",
		"https://x.example{runner.id}", "https://user:pw@x.example/", "https://x.example/#{runner.id}", "https://x.example/#a",
		"https://x.example/{", "https://x.example/}", "https://x.example/{}", "https://x.example/{identity.claims}", "https://x.example/{intent.annotation}",
		"https://x.example/{context.branch}", "https://x.example/?{runner.id}=1", "https://x.example/?a=1&{runner.id}", "https://x.example/a b", "https://x.example/\\",
		"https://x.example/?{runner.id}",
	} {
		if got, err := facts.ExpandURL(text, map[string]string{"runner.id": "r", "identity.repository": "a"}); err == nil {
			t.Errorf("%q became %q", text, got)
		}
	}
}

// Whatever is expanded has the host of its template and no segment that a
// server would take for "up", and one value changes nothing but its place.
func FuzzTemplate(f *testing.F) {
	f.Add("https://x.example/a/{intent.ticket_id}/b", "OPS-1")
	f.Add("https://x.example/{identity.repository}?q={identity.branch}", "a/b")
	f.Add("https://x.example/a?b={identity.actor}&c=d", "x&c=e")
	f.Fuzz(func(t *testing.T, template, value string) {
		values := map[string]string{}
		for _, name := range []string{"intent.ticket_id", "identity.repository", "identity.branch", "identity.actor", "runner.id"} {
			values[name] = value
		}
		got, err := facts.ExpandURL(template, values)
		if err != nil {
			return
		}
		fill := map[string]string{}
		for name := range values {
			fill[name] = "x"
		}
		plain, err := facts.ExpandURL(template, fill)
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(got)
		p, err2 := url.Parse(plain)
		if err != nil || err2 != nil {
			t.Fatalf("%q became %q: %v %v", template, got, err, err2)
		}
		if u.Scheme != p.Scheme || u.Host != p.Host || u.User != nil || u.Fragment != "" {
			t.Fatalf("%q became %q, which goes elsewhere", template, got)
		}
		if a, b := u.Query(), p.Query(); len(a) != len(b) {
			t.Fatalf("%q became %q, which has other parameters", template, got)
		}
		if !strings.Contains(template, "..") && strings.Contains(u.Path, "..") {
			t.Fatalf("%q became %q", template, got)
		}
		if !strings.Contains(template, "repository") && strings.Count(u.EscapedPath(), "/") != strings.Count(p.EscapedPath(), "/") {
			t.Fatalf("%q became %q, which has other segments", template, got)
		}
	})
}

func TestAddresses(t *testing.T) {
	const public, private, never = 2, 1, 0
	for text, want := range map[string]int{
		"93.184.216.34": public, "2606:2800:220:1::1": public,
		"127.0.0.1": private, "::1": private, "10.1.2.3": private, "192.168.1.1": private, "172.16.0.1": private, "fd00::1": private, "100.64.0.1": private,
		"::ffff:127.0.0.1": private, "::ffff:10.0.0.1": private,
		"169.254.169.254": never, "fe80::1": never, "0.0.0.0": never, "::": never, "224.0.0.1": never, "255.255.255.255": never, "198.18.0.1": never,
		"64:ff9b::7f00:1": never, "2002:7f00:1::": never, "192.0.0.1": never, "::7f00:1": never, "ff02::1": never, "fec0::1": never, "203.0.113.1": never,
	} {
		a := netip.MustParseAddr(text)
		if facts.MayDial(a, false) != (want == public) || facts.MayDial(a, true) != (want != never) {
			t.Errorf("%s: %t without and %t with allow_private", text, facts.MayDial(a, false), facts.MayDial(a, true))
		}
	}
}

// The examples of RFC 6901 section 5, and what its section 4 refuses.
func TestJSONPointer(t *testing.T) {
	doc, err := document.Parse([]byte(`{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8,"~1":9}`), document.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for pointer, want := range map[string]string{
		"": doc.String(), "/foo": `["bar","baz"]`, "/foo/0": `"bar"`, "/": "0", "/a~1b": "1", "/c%d": "2", "/e^f": "3", "/g|h": "4", `/i\j`: "5", `/k"l`: "6",
		"/ ": "7", "/m~0n": "8", "/~01": "9", "/foo/2": "", "/foo/-": "", "/foo/01": "", "/foo/+1": "", "/foo/bar": "", "/nothing": "", "/foo/0/x": "",
	} {
		v, err := facts.Pointer(doc, pointer)
		if err != nil || v.String() != want {
			t.Errorf("%q: %s, %v; want %s", pointer, v, err, want)
		}
	}
	for _, bad := range []string{"foo", "/a~", "/a~2", "#/foo"} {
		if _, err := facts.Pointer(doc, bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
