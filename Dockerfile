# One image for the Ray head, the Ray workers and the MLflow server of docker-compose.yml.
FROM python:3.11.14-slim-bookworm
RUN useradd --uid 10001 --user-group --home-dir /orch --create-home orch
WORKDIR /app
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY interp_model interp_model
COPY workers workers
COPY orchestrator orchestrator
COPY orch orch
RUN pip install --no-cache-dir --no-deps --no-build-isolation . && pip check
COPY deploy/provision.py deploy/mlflow-auth.ini deploy/
ENV ORCH_HOME=/orch HOME=/orch RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true
USER orch
