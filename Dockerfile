# One image for the Ray head, the Ray workers and the MLflow server of docker-compose.yml.
FROM python:3.11-slim
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY schemas schemas
COPY interp_model interp_model
COPY workers workers
COPY orchestrator orchestrator
RUN pip install --no-cache-dir --constraint constraints.txt '.[services]'
ENV ORCH_HOME=/orch RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true
