package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
)

// curl is as much of the real one as the documentation uses: not every machine
// on which the tests run has it.
func curl() {
	method, format := http.MethodGet, ""
	header := http.Header{}
	var url string
	for args := os.Args[1:]; len(args) > 0; args = args[1:] {
		switch a := args[0]; a {
		case "-s":
		case "-o", "-w", "-H", "-X":
			args = args[1:]
			switch a {
			case "-w":
				format = args[0]
			case "-X":
				method = args[0]
			case "-H":
				name, value, _ := strings.Cut(args[0], ": ")
				header.Set(name, value)
			}
		default:
			url = a
		}
	}
	req, err := http.NewRequest(method, url, nil)
	if err == nil {
		req.Header = header
		var resp *http.Response
		if resp, err = http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
			fmt.Print(strings.NewReplacer("%{http_code}", fmt.Sprint(resp.StatusCode), `\n`, "\n").Replace(format))
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "curl:", err)
		os.Exit(7)
	}
}
