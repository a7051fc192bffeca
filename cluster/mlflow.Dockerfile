# The MLflow server of compose.yaml: MLflow with the drivers for Postgres and S3.
FROM python:3.11-slim-bookworm
COPY constraints.txt .
RUN pip install --no-cache-dir -c constraints.txt mlflow boto3 "psycopg2-binary>=2.9,<3"
RUN useradd --create-home mlflow
USER mlflow
WORKDIR /home/mlflow
