# Requires make and Python 3.11 or newer with venv. `setup` creates .venv with pinned, hashed packages.
PYTHON ?= python3
PORT ?= 8000
DATA_DIR ?= recsys-data
# Processes of `make test`: two per core of a small machine, because many tests wait for a service or an emulator.
TEST_WORKERS ?= 4
VENV := .venv
BIN := $(VENV)/bin
# Without the cache of compiled files, pytest compiles the assertions of every test in every run.
unexport PYTHONDONTWRITEBYTECODE
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --require-hashes

.PHONY: setup run test test-fast test-docker coverage check format bench bench-train bench-serve locks sizes openapi docs-assets console-assets clean

setup: $(VENV)/.installed

$(VENV)/.installed: locks/dev.txt pyproject.toml
	@echo "Installing pinned packages into $(VENV) (TensorFlow is large; this takes a minute or two) …"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "recsys needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python $(PIP_INSTALL) -r locks/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# MiniStack pins its own botocore, so it has its own virtual environment.
.venv-ministack/.installed: locks/ministack.txt
	@echo "Installing the MiniStack emulator for the tests …"
	@test -x .venv-ministack/bin/python || $(PYTHON) -m venv .venv-ministack
	@.venv-ministack/bin/python $(PIP_INSTALL) -r locks/ministack.txt
	@touch $@

run: setup
	@$(BIN)/recsys serve --port $(PORT) --data-dir $(DATA_DIR) --sample

# Tests run side by side, so each process computes with one thread: more would wait for each other, at 2.5 times the CPU time.
test: export OPENBLAS_NUM_THREADS = 1
test: export OMP_NUM_THREADS = 1
test: export TF_NUM_INTRAOP_THREADS = 1
test: export TF_NUM_INTEROP_THREADS = 1
test: setup .venv-ministack/.installed
	@rm -rf .build/aws-calls
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadgroup -m "not docker"
	@$(BIN)/python -m tests.permissions --quiet

# About a minute on two cores: without AWS emulators, TensorFlow and slow tests.
# No test here needs the plugin of schemathesis, which takes a second to import in every process.
FAST_TESTS = -p no:schemathesis -m "not slow and not emulator and not node" tests/unit tests/contract tests/architecture tests/docs

test-fast: setup
	$(BIN)/python -m pytest -n 2 -q $(FAST_TESTS)

# The image of `train` and the stack of `make local-aws` in containers. Without Docker, the tests are skipped.
test-docker: setup .venv-ministack/.installed sam
	$(BIN)/python -m pytest -n 0 -m docker tests/infra

coverage: setup
	$(BIN)/python -m pytest -n 2 -q $(FAST_TESTS) --cov-report=term-missing:skip-covered --cov-fail-under=70 \
	  --cov=functions/api --cov=functions/recommend --cov=layers

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/cfn-lint template.yaml
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/architecture/test_language.py tests/architecture/test_names.py

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Quality of recsys, popularity and EASE; takes minutes. DATA=FOLDER adds the data sets that may not be bundled.
bench: setup
	$(BIN)/python -m tests.benchmarks.training $(if $(DATA),--data $(DATA)) --parts quality --only popularity EASE recsys --seeds 0

# All parts of docs/benchmarks.md, with every peer library; takes hours. BENCH="--parts …" selects parts.
bench-train: setup $(VENV)/.bench-installed
	$(BIN)/python -m tests.benchmarks.training $(if $(DATA),--data $(DATA)) $(BENCH)

# Latency of recommending compared with NumPy and Keras, on one thread each. DATA=FOLDER adds the model of Gowalla.
bench-serve: setup .venv-ministack/.installed
	OPENBLAS_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 $(BIN)/python -m tests.benchmarks.serving $(if $(DATA),--data $(DATA)) $(BENCH)
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.serving_http
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.serving_keepalive
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.load

# Dependencies of the peer libraries, which `make setup` does not install.
$(VENV)/.bench-installed: locks/bench.txt $(VENV)/.installed
	@$(BIN)/python $(PIP_INSTALL) -r locks/bench.txt
	@touch $@

# Needs npm. The script pins the versions, and the copied files are committed.
docs-assets: setup
	$(BIN)/python infra/deployment/docs_assets.py

# Needs npm. Run it after each change in functions/api/console, and commit what it writes.
console-assets: setup
	$(BIN)/python infra/deployment/console_assets.py

openapi: setup
	$(BIN)/python -m recsys_local.openapi

# -- documentation

.PHONY: docs

# Builds the site into .build/docs and fails on a broken link or a missing page. The variable hides Material's notice of
# its end of life (docs/decisions/0028-documentation-site.md).
docs: .venv-docs/.installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

.venv-docs/.installed: locks/docs.txt
	@echo "Installing MkDocs into .venv-docs …"
	@test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	@.venv-docs/bin/python $(PIP_INSTALL) -r locks/docs.txt
	@touch $@

# -- supply chain

.PHONY: sbom audit

# Bills of materials (CycloneDX) of the deployed packages, from the locks. Needs no network once .venv-audit is installed.
sbom: .venv-audit/.installed
	.venv-audit/bin/python infra/deployment/supply_chain.py sbom .build/sbom

# Known vulnerabilities of the deployed packages. If the database cannot be reached, the target only reports that. CI sets
# AUDIT=--require-database, so that the target fails instead.
audit: .venv-audit/.installed
	.venv-audit/bin/python infra/deployment/supply_chain.py audit $(AUDIT)

.venv-audit/.installed: locks/audit.txt
	@echo "Installing cyclonedx-bom and pip-audit into .venv-audit …"
	@test -x .venv-audit/bin/python || $(PYTHON) -m venv .venv-audit
	@.venv-audit/bin/python $(PIP_INSTALL) -r locks/audit.txt
	@touch $@

clean:
	rm -rf $(VENV) .venv-audit .venv-docs .venv-ministack .venv-sam .build .aws-sam .serverless .mypy_cache .ruff_cache .pytest_cache

# -- deployment (AWS SAM and Serverless describe the same stack; see docs/operations/deploy.md)

.PHONY: tree package osls sam validate-stacks local-aws verify-aws costs

# The only target that needs uv. UPGRADE=--upgrade updates versions. The lock of a function is for Lambda's Python and
# platform, and is constrained to the versions in locks/dev.txt, which the tests run with.
UV_COMPILE = UV_CUSTOM_COMPILE_COMMAND="make locks" uv pip compile --quiet --generate-hashes --no-emit-index-url $(UPGRADE)
UNIVERSAL = --universal --python-version 3.11
ON_LAMBDA = --python-version 3.13 --python-platform x86_64-manylinux_2_28

locks:
	$(UV_COMPILE) $(UNIVERSAL) --extra api --extra recommend --extra train --extra local --extra dev pyproject.toml -o locks/dev.txt
	$(UV_COMPILE) $(UNIVERSAL) locks/ministack.in -o locks/ministack.txt
	$(UV_COMPILE) $(UNIVERSAL) locks/sam.in -o locks/sam.txt
	$(UV_COMPILE) $(UNIVERSAL) locks/docs.in -o locks/docs.txt
	$(UV_COMPILE) $(UNIVERSAL) locks/audit.in -o locks/audit.txt
	$(UV_COMPILE) $(UNIVERSAL) -c locks/dev.txt locks/build.in -o locks/build.txt
	$(UV_COMPILE) $(UNIVERSAL) -c locks/dev.txt locks/bench.in -o locks/bench.txt
	$(PYTHON) infra/deployment/requirements.py api recommend train local | $(UV_COMPILE) $(UNIVERSAL) -c locks/dev.txt - -o locks/local.txt
	for name in api recommend train; do \
	  $(PYTHON) infra/deployment/requirements.py $$name | $(UV_COMPILE) $(ON_LAMBDA) -c locks/dev.txt - -o locks/$$name.txt || exit 1; \
	done
	cd locks && npm install --package-lock-only --omit-lockfile-registry-resolved=true --ignore-scripts --no-audit --no-fund

# Packaging needs only pip. It does not depend on `setup`, which would change .venv while other processes use it.
PACKAGE_PYTHON = $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
# arm64 for a stack with Architecture=arm64; also in the environment of `sam build`.
ARCHITECTURE ?= x86_64
PACKAGE = $(PACKAGE_PYTHON) infra/deployment/package.py --architecture $(ARCHITECTURE)

# Writes the unpacked package of NAME (api, recommend or shared) into DIR. functions/*/Makefile call it for `sam build`.
tree:
	@$(PACKAGE) tree $(NAME) "$(DIR)"

# The zips that serverless.yml deploys.
package:
	@$(PACKAGE) zips .build/package

sizes:
	@$(PACKAGE) sizes

osls: .build/node/.installed

.build/node/.installed: locks/package.json locks/package-lock.json
	@mkdir -p .build/node && cp locks/package.json locks/package-lock.json .build/node/
	@cd .build/node && npm ci --omit-lockfile-registry-resolved=true --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

sam: .venv-sam/.installed

# aws-sam-cli pins its own botocore, so it has its own environment. --no-deps, because pip misreads the lock's extras.
.venv-sam/.installed: locks/sam.txt
	@echo "Installing the AWS SAM CLI into .venv-sam …"
	@test -x .venv-sam/bin/python || $(PYTHON) -m venv .venv-sam
	@.venv-sam/bin/python $(PIP_INSTALL) --no-deps -r locks/sam.txt
	@touch $@

# Runs the stack on this machine, deployed to an emulator, until Ctrl+C. DOCKER=no runs the functions without Docker.
# LOCAL_AWS="--help" lists the options; see docs/operations/local-aws.md.
DOCKER ?= yes

local-aws: setup .venv-ministack/.installed $(if $(filter yes,$(DOCKER)),sam)
	@$(BIN)/python -m local_aws --docker $(DOCKER) $(LOCAL_AWS)

# Deploys the new stage STAGE to the AWS account of the environment, uses and checks it, and deletes it. It first prints
# what it will do and asks, unless CONFIRM=yes. VERIFY="--dry-run" only prints. See docs/operations/verify-aws.md.
verify-aws: setup sam
	@$(BIN)/python -m verify_aws --stage "$(STAGE)" --confirm "$(CONFIRM)" $(VERIFY)

# Prints the table of docs/operations/costs.md: what the stack costs on AWS, from its memory sizes and measured times.
costs: setup
	@$(BIN)/python -m deployment.costs

# Needs no AWS account. W3005 is ignored, because osls writes dependencies that a reference already implies.
validate-stacks: setup sam osls package
	$(BIN)/cfn-lint template.yaml
	SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=eu-central-1 .venv-sam/bin/sam validate --lint
	$(BIN)/python infra/deployment/serverless.py .build/serverless
	$(BIN)/cfn-lint --ignore-checks W3005 -- .build/serverless/cloudformation-template-update-stack.json
