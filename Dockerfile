# syntax=docker/dockerfile:1

# The page's libraries and bundle, which need npm to be made and nothing to be served.
FROM python:3.13-slim AS libraries
WORKDIR /site
COPY package.json package-lock.json .npmrc requirements-build.txt ./
COPY scripts scripts
COPY static static
RUN python -m venv /node \
 && /node/bin/pip install --no-cache-dir -r requirements-build.txt \
 && /node/bin/python scripts/libraries.py

FROM python:3.13-slim AS packages
WORKDIR /site
COPY requirements.txt ./
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir -r requirements.txt

FROM python:3.13-slim
WORKDIR /site
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 HOST=0.0.0.0
COPY --from=packages /venv /venv
COPY manage.py ./
COPY agentsite agentsite
COPY conversations conversations
COPY realtime realtime
COPY deploy/is_ready.py deploy/
COPY templates templates
COPY static static
COPY --from=libraries /site/static/vendor static/vendor
COPY --from=libraries /site/bundle bundle
# Static files are part of the image, so that nothing is written when it runs. The key signs nothing.
RUN SECRET_KEY=only-for-this-step-0123456789-abcdefghijklmnopqrstuvwxyz ALLOWED_HOSTS=localhost \
    python manage.py collectstatic --no-input --verbosity 0
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s CMD ["python", "deploy/is_ready.py"]
CMD ["python", "manage.py", "serve"]
