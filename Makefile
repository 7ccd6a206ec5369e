# Everything is built and tested through here, so that every go command gets the
# tag that go-ceph needs for the installed librbd. `make help` lists the targets.

GO          := $(or $(shell command -v go),/usr/local/go/bin/go)
LIBRBD_H    ?= /usr/include/rbd/librbd.h
CLUSTER     ?= .cluster
GOFUMPT     := mvdan.cc/gofumpt@v0.9.2
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.7.0
# What builds without cgo, and so without librbd.
PURE        := ./cmd/... ./engine/... ./store/... ./hints/...

# librbd 1.N is that of Ceph N. From squid (19) on go-ceph needs no tag.
ceph-15 := octopus
ceph-16 := pacific
ceph-17 := quincy
ceph-18 := reef
librbd  := $(shell sed -n 's/^.define LIBRBD_VER_MINOR *//p' $(LIBRBD_H) 2>/dev/null)
tag     := $(ceph-$(librbd))
comma   := ,

# The flags that are set already, here or by `go env -w`, stay; of two -tags only one would count.
goflags := $(shell $(GO) env GOFLAGS)
export GOFLAGS := $(if $(filter -tags=%,$(goflags)),\
	$(patsubst -tags=%,-tags=%$(tag:%=$(comma)%),$(goflags)),\
	$(goflags) $(tag:%=-tags=%))

version := $(shell git describe --tags --always --dirty 2>/dev/null)
build   := $(GO) build -trimpath -ldflags '$(version:%=-X main.version=%)'

.PHONY: help build build-norbd image docker-test deb bin/deb/backy deb-test test test-other verify test-binaries soak race lint demo bench cluster cluster-down deps headers clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

build: headers ## build bin/backy (needs what `docker/deps.sh build` installs)
	$(build) -o bin/backy ./cmd/backy

build-norbd: ## build bin/backy-norbd: without librbd, for files, devices and pipes
	CGO_ENABLED=0 $(build) -o bin/backy-norbd ./cmd/backy

image: ## build the container image backy from what is committed or added: IMAGE=NAME, IMAGEFLAGS='--build-arg BASE=…'
	git ls-files -z | tar -c --null --files-from - | \
		docker build -t $(or $(IMAGE),backy) $(version:%=--build-arg VERSION=%) $(IMAGEFLAGS) -f docker/Dockerfile -

docker-test: deps ## build the image and back up, scrub, restore and be stopped in it, on a cluster of their own
	docker/docker-test.sh

deb: ## make a Debian package in bin/deb: on bookworm (Debian 12), for trixie and forky, too
	@docker/deps.sh deb
	@$(MAKE) --no-print-directory bin/deb/backy
	docker/deb/make.sh bin/deb

# A package has no use for symbols, and its programs are loaded anywhere.
bin/deb/backy: headers
	$(GO) build -trimpath -buildmode=pie -ldflags '-s -w $(version:%=-X main.version=%)' -o $@ ./cmd/backy

deb-test: deb deps ## check the package, install it in clean Debians, and back up with it there
	docker/deb/test.sh bin/deb

test: deps ## install what is missing and run all checks and tests on a cluster of their own
	@$(MAKE) --no-print-directory lint verify

# The headers may have come after this Makefile was read: verify and the like run in a make of their own.
verify:
	docker/cluster.sh with --size 8G -- $(GO) test -timeout 40m ./...
	$(GO) test -race -timeout 40m -skip 'Schedules|Powercut' ./hints ./store/...
	$(GO) test -race -timeout 40m -run 'Stream|Dedup|Beside|TwoGCs|DeepScrub' ./engine

test-other: ## run the tests that speak to Ceph, and the demo, on the other releases of Debian and Ceph
	docker/test-other.sh

# What test-other runs on each release.
test-binaries: headers
	$(GO) test -c -o .cache/tests/ ./rbd ./rbd/clustertest ./cmd/backy
	$(build) -o .cache/tests/backy ./cmd/backy

# Each part is one that tries more the longer it may.
soak: headers ## try for hours what make test tries for minutes: schedules (SCHEDULES=n from SEED=n), faults, flips, kills
	$(GO) test ./store -run 'TestSchedules$$' -v -schedules $(or $(SCHEDULES),100000) -seed $(or $(SEED),1) -timeout 0
	$(GO) test ./store -run Flips -soak -timeout 0
	$(GO) test ./store/dir -run Power -soak -rapid.checks 20000 -timeout 0
	$(GO) test ./engine -run 'Troubled|AtOnce|Sleeper|Crash|Prefix' -soak -timeout 0
	docker/cluster.sh with --size 8G -- $(GO) test ./cmd/backy -run 'Kill|Ledger|CrashCosts' -kills 200 -ledger 500 -crashes -timeout 0

race: headers ## run all tests with the race detector, which takes half an hour
	docker/cluster.sh with --size 8G -- $(GO) test -race -timeout 60m -p 1 -skip Schedules ./...

lint: headers ## go vet, with and without librbd, gofumpt and staticcheck
	$(GO) vet ./...
	CGO_ENABLED=0 $(GO) vet $(PURE)
	$(GO) run $(STATICCHECK) ./...
	@echo '$(GO) run $(GOFUMPT) -l .'; bad=$$($(GO) run $(GOFUMPT) -l .) && \
		{ test -z "$$bad" || { echo "not formatted as gofumpt does it:"; echo "$$bad"; exit 1; }; }

demo: deps ## install what is missing and show a backup, damage, mending and a restore on a real cluster
	@$(MAKE) --no-print-directory build
	docker/cluster.sh with -- docker/demo.sh

bench: ## measure backy beside its peers, in RAM of which it takes 20 GiB: WHAT=rbd,file,sizes,levels,images,chunks,fanout
	@docker/deps.sh bench
	@$(MAKE) --no-print-directory build
	docker/cluster.sh with --size 12G -- $(GO) run ./cmd/bench -what $(or $(WHAT),rbd) $(BENCHFLAGS)

cluster: deps ## start a Ceph cluster in .cluster to play with; it stays until cluster-down
	docker/cluster.sh up $(CLUSTER)
	@echo; echo 'Use it from this shell:'
	@echo '  eval "$$(docker/cluster.sh env $(CLUSTER))"'
	@echo '  rbd create --size 1G rbd/image; bin/backy backup rbd:rbd/image /tmp/backups/image'
	@echo 'Stop it and remove its files: make cluster-down'

cluster-down: ## stop that cluster and remove its files
	docker/cluster.sh down $(CLUSTER) --rm

deps:
	@docker/deps.sh all

headers:
	@test '$(librbd)' && command -v $(firstword $(or $(CC),cc)) >/dev/null || { \
		echo 'A C compiler or the headers of librbd ($(LIBRBD_H)) are missing:' \
		'run docker/deps.sh build, or do without: make build-norbd.' >&2; exit 1; }

clean: ## remove what was built
	rm -rf bin
