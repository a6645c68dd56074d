# semkey on the CPU: docker build -t semkey . && docker run --rm -v "$PWD:/data" semkey slam recording.mp4 --out run
FROM python:3.13-slim
COPY . /source
RUN pip install --no-cache-dir /source --extra-index-url https://download.pytorch.org/whl/cpu && rm -r /source
WORKDIR /data
ENTRYPOINT ["semkey"]
CMD ["--help"]
