package ai.onnxruntime;
import java.util.*;
public class OrtSession implements AutoCloseable {
    public Result run(Map<String, ? extends OnnxTensorLike> inputs) throws OrtException { return null; }
    @Override public void close() throws OrtException {}
    public static class SessionOptions implements AutoCloseable {
      public void setIntraOpNumThreads(int threads) throws OrtException {}
      @Override public void close() {}
    }
    public static class Result implements AutoCloseable, Iterable<Map.Entry<String, OnnxValue>> {
      public Optional<OnnxValue> get(String key) { return null; }
      public OnnxValue get(int index) { return null; }
      @Override public Iterator<Map.Entry<String, OnnxValue>> iterator() { return null; }
      @Override public void close() {}
    }
}
