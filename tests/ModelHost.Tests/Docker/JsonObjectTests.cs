using System.Text;
using ModelHost.Docker.Streams;

namespace ModelHost.Tests.Docker;

public sealed class JsonObjectTests
{
    [Fact]
    public void Objects_may_be_cut_anywhere_and_follow_each_other_with_or_without_a_line_between()
    {
        string[] objects = ["""{"a":"}{\"]\\"}""", """{"b":[{"c":{}},"ü{"]}""", "{}", """{"d":"\\\""}"""];
        var stream = Encoding.UTF8.GetBytes($" \r\n{objects[0]}{objects[1]}\r\n\n{objects[2]} {objects[3]}\n");

        for (var first = 0; first <= stream.Length; first++)
            for (var second = first; second <= stream.Length; second++)
                Split(stream[..first], stream[first..second], stream[second..]).ShouldBe(objects);
    }

    [Fact]
    public void An_object_is_whole_with_its_last_bracket()
    {
        var splitter = new JsonObjectSplitter();

        splitter.Feed("""{"a":1"""u8, out var early);
        splitter.IsWithinObject.ShouldBeTrue();
        splitter.Feed("}"u8, out var whole);

        early.ShouldBeFalse();
        whole.ShouldBeTrue();
        splitter.IsWithinObject.ShouldBeFalse();
    }

    [Fact]
    public void An_object_of_just_the_limit_is_one_object()
    {
        var text = $$"""{"a":"{{new string('x', JsonObjectSplitter.MaxBytes - 8)}}"}""";

        Split(Encoding.UTF8.GetBytes(text + "{}")).ShouldBe([text, "{}"]);
    }

    [Theory]
    [InlineData("not json")]
    [InlineData("[{}]")]
    [InlineData("}")]
    [InlineData("\0")]
    public void What_is_no_object_is_a_failure(string text)
    {
        var splitter = new JsonObjectSplitter();

        splitter.Feed(Encoding.UTF8.GetBytes(text), out var whole);

        whole.ShouldBeFalse();
        splitter.Failure.ShouldBe("the answer is not a stream of objects");
    }

    private static List<string> Split(params byte[][] parts)
    {
        var splitter = new JsonObjectSplitter();
        var objects = new List<string>();
        foreach (var part in parts)
        {
            var start = 0;
            while (start < part.Length)
            {
                start += splitter.Feed(part.AsSpan(start), out var whole);
                splitter.Failure.ShouldBeNull();
                if (whole)
                    objects.Add(Encoding.UTF8.GetString(splitter.Take()));
            }
        }
        splitter.IsWithinObject.ShouldBeFalse();
        return objects;
    }
}
