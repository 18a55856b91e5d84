# `make help` lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory --warn-undefined-variables

# Tools, by the versions that generate and check what is checked in. They go into
# .tool/bin, built from source, and are no part of go.mod, so that vendors do not
# inherit them. Only buf comes built: to build it takes two minutes.
BUF := @bufbuild/buf@1.75.0
PROTOC_GEN_GO := google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
PROTOC_GEN_GO_GRPC := google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

TOOLS := $(CURDIR)/.tool
export PATH := $(TOOLS)/bin:$(PATH)

# A tool's stamp holds its version in its name: another version is another file.
stamp = $(TOOLS)/$(notdir $(1))
BUF_STAMP := $(call stamp,$(BUF))
GENERATORS := $(call stamp,$(PROTOC_GEN_GO)) $(call stamp,$(PROTOC_GEN_GO_GRPC))
LINT_STAMP := $(call stamp,$(GOLANGCI_LINT))

define tool
$(call stamp,$(1)):
	@echo "building $(1)"
	@mkdir -p $(TOOLS)/bin
	@GOFLAGS= GOBIN=$(TOOLS)/bin go install $(1)
	@rm -f $(TOOLS)/$(firstword $(subst @, ,$(notdir $(1))))@*
	@touch $$@
endef
$(foreach t,$(PROTOC_GEN_GO) $(PROTOC_GEN_GO_GRPC) $(GOLANGCI_LINT),$(eval $(call tool,$(t))))

$(BUF_STAMP):
	@echo "fetching $(BUF)"
	@mkdir -p $(TOOLS)/bin
	@npm install --silent --no-save --no-audit --no-fund --prefix $(TOOLS)/npm $(BUF)
	@ln -sf ../npm/node_modules/.bin/buf $(TOOLS)/bin/buf
	@rm -f $(TOOLS)/buf@*
	@touch $@

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# Every folder that holds a plugin; its name is the plugin's.
PLUGINS := $(patsubst %/main.go,%,$(wildcard plugins/*/main.go) examples/echo/main.go)
# The vendors' desks as programs of their own, by the names of their plugins.
SIMULATORS := $(wildcard plugins/*/*test/simulator)
# The desk of make run.
DESK ?= mock
# The systems besides this one that everything must build for.
SYSTEMS := darwin windows
# Where a vendor's own client judges the simulator of its desk.
VENDOR_CLIENT := plugins/genesys/genesystest/vendorclient
# Where .proto files are, and beside them what is published: see publish-contract.
PROTO := proto host/internal/journal
# Where Go's files are; node_modules holds some of others.
GO_FILES := git ls-files --cached --others --exclude-standard '*.go'

##@ Everyday

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@ / {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: run
run: ## Run the demo: the mock desk (DESK=genesys: a vendor's, simulated) and the host, at http://127.0.0.1:8080
	@examples/demo/run --check $(DESK)
	@if command -v npm >/dev/null; then $(MAKE) carbon || echo "/carbon/ is left out: npm could not build it."; \
	else echo "/carbon/ is left out: it needs npm, which is not here."; fi
	@$(MAKE) build
	@exec examples/demo/run $(DESK)

.PHONY: carbon
carbon: host/web/carbon/dist/root/carbon/index.html ## Build the demo's page with IBM's widget, /carbon/, for the next make build; needs npm

.PHONY: build
build: ## Build bin/deskhost, bin/plugins.d/deskhost-plugin-* and bin/simulators/*
	go build -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/deskhost ./host/cmd/deskhost
	@$(foreach p,$(PLUGINS),echo "go build ./$(p)" && go build -trimpath -o bin/plugins.d/deskhost-plugin-$(notdir $(p)) ./$(p) && ) true
	@$(foreach s,$(SIMULATORS),echo "go build ./$(s)" && go build -trimpath -o bin/simulators/$(word 2,$(subst /, ,$(s))) ./$(s) && ) true

.PHONY: node-desk
node-desk: examples/node-desk/node_modules/.package-lock.json ## Build the plugin in Node, examples/node-desk, into bin/plugins.d; needs npm
	cd examples/node-desk && node build.mjs $(CURDIR)/bin/plugins.d/deskhost-plugin-node-desk

.PHONY: fmt
fmt: ## Format the Go files
	@$(GO_FILES) | xargs gofmt -w

.PHONY: clean
clean: ## Remove what was built; the tools and the demo's data stay
	rm -rf bin host/web/node_modules host/web/carbon/node_modules host/web/carbon/dist/root $(VENDOR_CLIENT)/node_modules examples/node-desk/node_modules

##@ Before a change goes in

.PHONY: test
test: test-go test-web ## Run every test: Go's with the race detector, the page in headless Chromium

.PHONY: test-go
test-go: ## Run the Go tests only
	go vet ./...
	@mkdir -p $(TOOLS)
	@echo "go test -race ./..."
	@mkdir -p $(TOOLS)
	@go test -race -timeout 20m ./... 2>&1 | tee $(TOOLS)/test-go.log || { \
		echo "== What failed, from .tool/test-go.log:"; \
		grep -E '^ *--- FAIL|^ *[^ ]+\.go:[0-9]+:|^panic: |DATA RACE|^(FAIL|#)[[:space:]]' $(TOOLS)/test-go.log | cut -c 1-300 | head -n 80; \
		exit 1; }

.PHONY: test-web
test-web: carbon host/web/node_modules/.package-lock.json $(VENDOR_CLIENT)/node_modules/.package-lock.json chromium node-desk ## Run the tests in Node only: the bridge, the pages, the plugin in Node, a vendor's client against its simulator
	@$(MAKE) build
	cd host/web && npm run --silent test:unit && npm run --silent test:browser
	cd examples/node-desk && npm run --silent test
	cd $(VENDOR_CLIENT) && npm run --silent test

.PHONY: check
check: check-go lint check-proto check-generated check-web ## Check format, vet, lint, the contract, generated files, other systems

.PHONY: check-go
check-go: ## Check format and vet, here and for the other systems
	@files=$$($(GO_FILES) | xargs gofmt -l); [ -z "$$files" ] || { echo "not formatted, run make fmt:"; echo "$$files"; exit 1; }
	go vet ./...
	@# Compiled as releases are, which the test of plugin new makes of what was compiled here.
	@$(foreach s,$(SYSTEMS),echo "GOOS=$(s) go vet ./..." && GOOS=$(s) GOARCH=amd64 CGO_ENABLED=0 go vet -trimpath ./... && ) true

.PHONY: lint
lint: $(LINT_STAMP) ## Run golangci-lint
	golangci-lint run ./...

.PHONY: check-proto
check-proto: $(BUF_STAMP) ## Lint the .proto files and compare them with what is published
	buf lint
	@for p in $(PROTO); do buf breaking $$p --against $$p/published.binpb --exclude-imports \
		|| { echo "This breaks what is published in $$p/published.binpb: messages only grow."; exit 1; }; done

.PHONY: check-generated
check-generated: $(BUF_STAMP) $(GENERATORS) ## Fail if generated files are not up to date
	@rm -rf $(TOOLS)/generated
	buf generate -o $(TOOLS)/generated
	@diff -u <(find proto sdk host plugins -name '*.pb.go' | LC_ALL=C sort | xargs cat) \
		<(cd $(TOOLS)/generated && find * -name '*.pb.go' | LC_ALL=C sort | xargs cat) \
		|| { echo "generated files are not up to date: run make generate"; exit 1; }

.PHONY: generate
generate: $(BUF_STAMP) $(GENERATORS) ## Generate the Go code of the .proto files
	buf generate

.PHONY: publish-contract
publish-contract: $(BUF_STAMP) ## Take the .proto files as published: from now on they may only grow
	@for p in $(PROTO); do [ ! -e $$p/published.binpb ] || buf breaking $$p --against $$p/published.binpb --exclude-imports \
		|| { echo "Not published: this breaks what is published in $$p/published.binpb."; exit 1; }; done
	@for p in $(PROTO); do buf build $$p --exclude-source-info -o $$p/published.binpb; done

.PHONY: check-web
check-web: host/web/node_modules/.package-lock.json host/web/carbon/node_modules/.package-lock.json ## Check the bridge's types, also against those of the widgets, and that its built files are up to date
	cd host/web && npm run --silent check
	cd host/web/carbon && npm run --silent check
	@rm -rf $(TOOLS)/dist && mkdir -p $(TOOLS) && cp -r host/web/dist $(TOOLS)/dist
	cd host/web && npm run --silent build
	@diff -ur $(TOOLS)/dist host/web/dist || { echo "host/web/dist was not up to date: the build has just written it again"; exit 1; }

##@ Under faults

SOAK ?= -faults 300

.PHONY: soak
soak: ## Have 1,000 chats talk through 300 random faults, for each way of send_dedupe, and compare what all know afterwards
	go run ./host/internal/check $(SOAK) -dedupe key
	go run ./host/internal/check $(SOAK) -dedupe none

##@ Speed

# Flags of the bench, as in BENCH='-only events,messages'.
BENCH ?=
BENCHTIME ?= 1s

.PHONY: bench
bench: build ## Measure the host beside a floor, in a quarter of an hour; docs/performance.md explains the table
	go run ./host/internal/bench $(BENCH)

.PHONY: bench-parts
bench-parts: ## Measure parts by Go benchmarks, and answers beside a desk that goes wrong
	go test -run '^$$' -bench . -benchtime $(BENCHTIME) ./sdk/... ./host/internal/journal/... ./host/internal/session/...
	go test -run '^$$' -bench 'BesideFaults' -benchtime 1x ./host/internal/e2e

##@ What the web tests need

host/web/node_modules/.package-lock.json host/web/carbon/node_modules/.package-lock.json examples/node-desk/node_modules/.package-lock.json \
$(VENDOR_CLIENT)/node_modules/.package-lock.json: \
%/node_modules/.package-lock.json: %/package.json %/package-lock.json
	@command -v npm >/dev/null || { echo "This needs Node 20 or newer, with npm. Install it, or run make test-go for the rest."; exit 1; }
	cd $* && npm ci --no-audit --no-fund --ignore-scripts
	@touch $@

host/web/carbon/dist/root/carbon/index.html: $(wildcard host/web/carbon/src/*) host/web/carbon/build.mjs host/web/carbon/node_modules/.package-lock.json
	cd host/web/carbon && npm run --silent build

.PHONY: chromium
chromium: ## Install Debian's Chromium if there is none and this is Debian and root
	@.ci/chromium
