# docker build -t fine-tuning-studio .                       an NVIDIA card (torch brings its CUDA; the host needs the driver and its container toolkit)
# docker build -t fine-tuning-studio --build-arg TORCH=cpu . no GPU: a quarter of the size
FROM python:3.11-slim-bookworm

ARG TORCH=cuda
RUN useradd --create-home --uid 1000 studio && mkdir /home/studio/app /data && chown studio:studio /home/studio/app /data
USER 1000
WORKDIR /home/studio/app
ENV PATH=/home/studio/.local/bin:$PATH PYTHONUNBUFFERED=1 STUDIO_HOME=/data HF_HOME=/data/hub

COPY --chown=studio requirements.txt requirements.lock ./
RUN if [ "$TORCH" = cpu ]; then pip install --user --no-cache-dir "$(grep '^torch==' requirements.txt)" --index-url https://download.pytorch.org/whl/cpu; fi \
 && pip install --user --no-cache-dir -r requirements.txt -c requirements.lock
COPY --chown=studio app.py LICENSE README.md ./
COPY --chown=studio studio studio
COPY --chown=studio templates templates

VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/', timeout=8)"]
# Reached from outside the container, so it asks for a login: STUDIO_PASSWORD, or the one that is made up and printed.
CMD ["python", "app.py", "--host", "0.0.0.0", "--port", "7860"]
