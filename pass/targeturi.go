package pass

import (
	"errors"
	"strings"
)

var errTarget = errors.New("not an absolute http or https URL of plain characters without userinfo")

// targetURI normalises a request's URL as RFC 9449 section 4.3 wants it
// compared: without query and fragment, and by RFC 3986 sections 6.2.2 and
// 6.2.3. It takes ASCII only; an international host is compared in its A-label
// form, which is how it goes over the wire.
func targetURI(s string) (string, error) {
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		s = s[:i]
	}
	scheme, rest, ok := strings.Cut(s, "://")
	scheme = lower(scheme)
	if !ok || scheme != "https" && scheme != "http" {
		return "", errTarget
	}
	authority, path := rest, ""
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		authority, path = rest[:i], rest[i:]
	}
	authority, err := hostPort(scheme, lower(authority))
	if err != nil {
		return "", err
	}
	path, err = normalPath(path)
	if err != nil {
		return "", err
	}
	return scheme + "://" + authority + path, nil
}

func hostPort(scheme, authority string) (string, error) {
	host, port := authority, ""
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		host, port = authority[:i], authority[i+1:]
		for i := 0; i < len(port); i++ {
			if port[i] < '0' || port[i] > '9' {
				return "", errTarget
			}
		}
		port = strings.TrimLeft(port, "0")
		if len(port) > 5 || port == "" && strings.HasSuffix(authority, "0") {
			return "", errTarget
		}
	}
	for i := 0; i < len(host); i++ {
		c := host[i]
		literal := host[0] == '[' && (c == ':' || i == 0 || c == ']' && i == len(host)-1)
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || literal) {
			return "", errTarget
		}
	}
	if host == "" || host[0] == '[' && host[len(host)-1] != ']' {
		return "", errTarget
	}
	if port == "" || scheme == "https" && port == "443" || scheme == "http" && port == "80" {
		return host, nil
	}
	return host + ":" + port, nil
}

// normalPath decodes percent-encoded unreserved characters, writes the others
// in upper case, and takes dot segments out. The empty path is "/".
func normalPath(path string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		c := path[i]
		switch {
		case c <= 0x20 || c >= 0x7f || strings.IndexByte("\"<>\\^`{|}", c) >= 0:
			return "", errTarget
		case c != '%':
			b.WriteByte(c)
		default:
			if i+2 >= len(path) {
				return "", errTarget
			}
			hi, lo := unhex(path[i+1]), unhex(path[i+2])
			if hi < 0 || lo < 0 {
				return "", errTarget
			}
			i += 2
			if c := byte(hi<<4 | lo); isUnreserved(c) {
				b.WriteByte(c)
			} else {
				b.WriteByte('%')
				b.WriteByte("0123456789ABCDEF"[hi])
				b.WriteByte("0123456789ABCDEF"[lo])
			}
		}
	}
	return withoutDots(b.String()), nil
}

// withoutDots is RFC 3986 section 5.2.4 for a path that begins with "/".
func withoutDots(path string) string {
	if path == "" {
		return "/"
	}
	if !strings.Contains(path, "/.") {
		return path
	}
	segments := strings.Split(path[1:], "/")
	out := make([]string, 0, len(segments))
	for i, s := range segments {
		last := i == len(segments)-1
		switch s {
		case ".", "..":
			if s == ".." && len(out) > 0 {
				out = out[:len(out)-1]
			}
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, s)
		}
	}
	return "/" + strings.Join(out, "/")
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func isUnreserved(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '.' || c == '_' || c == '~'
}

func lower(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i] >= 'A' && s[i] <= 'Z' {
			b := []byte(s)
			for j := range b {
				if b[j] >= 'A' && b[j] <= 'Z' {
					b[j] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}
