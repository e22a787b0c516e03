# Proviso. `make` alone prints what there is.
SHELL := /bin/bash
GO    ?= go
BIN   := bin/proviso
FUZZTIME ?= 10s
export GOFLAGS ?= -buildvcs=auto
export PATH := $(PATH):/usr/local/go/bin # where Go's own archive goes, in shells that don't look there

.DEFAULT_GOAL := help

help: ## print this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/proviso
	$(GO) build -ldflags "-s -w" -o $(BIN) ./cmd/proviso

demo: system build ## play the whole flow and the main attacks (under 10 s after the build)
	$(BIN) demo

dev: system build ## keep the demo's lab running and print commands to try
	$(BIN) dev

system: ## install what the demo needs from Debian (git, openssh-client, gnupg, nginx)
	@./scripts/system

system-tests: ## install what the tests need besides (chromium, graphviz, jq)
	@./scripts/system tests

test: system-tests ## every test, once
	$(GO) test ./...

system-race: ## install what the race detector needs besides (a C compiler)
	@./scripts/system race

race: system-race ## every test under the race detector
	$(GO) test -race ./...

check: ## formatting, vet, linters, tidy modules
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "not gofmt-clean:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(GO) mod tidy -diff
	$(GO) tool -modfile=tools/go.mod golangci-lint run ./...

vuln: ## known vulnerabilities in what the binary calls (needs the Go vulnerability database)
	$(GO) tool -modfile=tools/go.mod govulncheck ./...

fuzz: ## each fuzz target for FUZZTIME (default 10s)
	@./scripts/fuzz $(FUZZTIME)

bench: build ## what it costs, as ratios within one run
	@./scripts/bench

cover: system-tests ## coverage per package, and coverage.html
	$(GO) test -coverprofile=coverage.out -coverpkg=./... ./... && $(GO) tool cover -html=coverage.out -o coverage.html && $(GO) tool cover -func=coverage.out | tail -1

peers-test: build ## the tests with a real SPIRE; builds it once into a cache (ten minutes)
	@cd peers && PROVISO_SPIRE="$$(./build)" PROVISO_BINARY="$(CURDIR)/$(BIN)" $(GO) test -count=1 ./...

inventory-eval: ## recall, kind, false positives and reach of the inventory, per CI system
	$(GO) test ./inventory -run TestTruth -v -count=1

.PHONY: help build demo dev system system-tests system-race test race check vuln fuzz bench cover peers-test inventory-eval
