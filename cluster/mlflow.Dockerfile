# The MLflow server of compose.yaml and kubernetes/mlflow.yaml: MLflow with the drivers for Postgres and S3.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}
WORKDIR /opt/mlflow
COPY constraints.txt ./
RUN pip install --no-cache-dir -c constraints.txt mlflow boto3 "psycopg2-binary>=2.9,<3" \
    && useradd --create-home --uid 1000 --user-group mlflow
USER 1000:1000
WORKDIR /home/mlflow
