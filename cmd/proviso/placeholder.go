package main

import (
	"fmt"
	"regexp"
	"strings"
)

// placeholders are the values that `proviso plan` leaves open in a configuration.
var placeholders = regexp.MustCompile(`SET-ME:[A-Za-z0-9_]*`)

// unset refuses a configuration in which something is still to be filled in,
// and names all of it: a placeholder that went unseen could pin an issuer to
// an owner that anybody may call himself one day.
func unset(name string, data []byte) error {
	e := &configErrors{file: name}
	for i, line := range strings.Split(string(data), "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		for _, at := range placeholders.FindAllStringIndex(line, -1) {
			what := strings.TrimPrefix(line[at[0]:at[1]], "SET-ME:")
			e.problems = append(e.problems, fmt.Sprintf("%s:%d:%d: %s is not set: write its value here, or make the plan again with --set %s=VALUE; PLAN.md says where to find it", name, i+1, at[0]+1, what, what))
		}
	}
	if len(e.problems) == 0 {
		return nil
	}
	return e
}
