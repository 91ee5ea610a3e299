// node run_tfjs.js TF_MIN_JS MODEL_FOLDER PIXELS SIZE: the probabilities that nsfwjs gives of pixels.
const [library, folder, pixels, size] = process.argv.slice(2);
const tf = require(library), fs = require("fs"), path = require("path");
(async () => {
  const model = require(path.join(folder, "model.min.js")), [group] = model.weightsManifest;
  const shards = group.paths.map((p) => Buffer.from(require(path.join(folder, `${p}.min.js`)), "base64"));
  const data = Buffer.concat(shards);
  const weightData = data.buffer.slice(data.byteOffset, data.byteOffset + data.length);
  const load = async () => ({ ...model, weightSpecs: group.weights, weightData });
  await tf.setBackend("cpu");
  const graph = model.format === "graph-model";
  const net = await (graph ? tf.loadGraphModel({ load }) : tf.loadLayersModel({ load }));
  const values = new Uint8Array(fs.readFileSync(pixels));
  const x = tf.tensor(values, [1, +size, +size, 3], "int32").toFloat().div(255);
  console.log(JSON.stringify(Array.from(await net.predict(x).data())));
})();
