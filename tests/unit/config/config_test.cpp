#include "common/config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "common/base/error.h"

namespace scd {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

enum class Policy { kLru, kNone };

struct Limits {
  int32_t most = 4;
  std::chrono::milliseconds patience{250};
};

struct Peer {
  std::string name;
  int32_t weight = 1;
};

struct Settings {
  Policy policy = Policy::kLru;
  double share = 0.5;
  bool verbose = false;
  std::string name = "a \"b\"";
  std::vector<std::string> peers = {"a:1"};
  std::filesystem::path file;
  size_t bytes = 10;
  Limits limits;
  std::vector<Peer> others;
};

void describe(ConfigVisitor& at, Limits& limits) {
  at.number("most", limits.most, {1, 64}, "How many.");
  at.milliseconds("patience_ms", limits.patience, {1, 1000}, "How long.");
}

void describe(ConfigVisitor& at, Peer& peer) {
  at.text("name", peer.name, "Its name.");
  at.number("weight", peer.weight, {1, 9}, "How much.");
}

void describe(ConfigVisitor& at, Settings& settings) {
  at.choice("policy", settings.policy, {{"lru", Policy::kLru}, {"none", Policy::kNone}}, "What goes first.");
  at.number("share", settings.share, {0, 1}, "A share.");
  at.flag("verbose", settings.verbose, "More.");
  at.text("name", settings.name, "A name.");
  at.texts("peers", settings.peers, "Peers.");
  at.path("file", settings.file, "A file.");
  at.number("bytes", settings.bytes, {1, 1 << 30}, "Bytes.");
  at.section("limits", settings.limits, "Limits of a request.");
  at.sections("others", settings.others, "Others.");
}

class ConfigTest : public ::testing::Test {
 protected:
  void SetUp() override {
    file_ = std::filesystem::temp_directory_path() /
            ("scd_config_" + std::to_string(::getpid()) + "_" +
             ::testing::UnitTest::GetInstance()->current_test_info()->name() + ".yaml");
  }
  void TearDown() override { std::filesystem::remove(file_); }

  Settings load(const std::string& text, std::vector<std::string> overrides = {}) {
    std::ofstream(file_, std::ios::binary) << text;
    Settings settings;
    load_config(settings, {file_, std::move(overrides)});
    return settings;
  }
  std::string refusal(const std::string& text, std::vector<std::string> overrides = {}) {
    try {
      load(text, std::move(overrides));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      return error.what();
    }
    return "accepted";
  }
  std::string at_line(int line) const { return file_.string() + ":" + std::to_string(line); }

  std::filesystem::path file_;
};

TEST_F(ConfigTest, ReadsEveryKindOfValueAndKeepsDefaultsOfAbsentKeys) {
  const Settings settings =
      load("policy: none\nshare: 0.25\nverbose: true\npeers: [x:1, \"y:2\"]\nlimits:\n  most: 7\n");
  EXPECT_EQ(settings.policy, Policy::kNone);
  EXPECT_EQ(settings.share, 0.25);
  EXPECT_TRUE(settings.verbose);
  EXPECT_THAT(settings.peers, ElementsAre("x:1", "y:2"));
  EXPECT_EQ(settings.limits.most, 7);
  EXPECT_EQ(settings.limits.patience, std::chrono::milliseconds(250));
}

TEST_F(ConfigTest, AnEmptyFileMeansTheDefaults) {
  EXPECT_EQ(load("").limits.most, 4);
  EXPECT_EQ(load("# only a comment\n").limits.most, 4);
  EXPECT_EQ(load("limits:\n  # most: 3\n").limits.most, 4);
}

TEST_F(ConfigTest, WhatIsDumpedLoadsToTheSame) {
  Settings settings;
  settings.policy = Policy::kNone;
  settings.share = 0.1;
  settings.name = "quote \" backslash \\ colon: #";
  settings.peers = {"a, b", "c"};
  settings.file = "/tmp/x y";
  settings.limits.patience = std::chrono::milliseconds(999);
  const std::string text = dump_config(settings);
  EXPECT_EQ(dump_config(load(text)), text);
  EXPECT_EQ(load(text).name, settings.name);
}

TEST_F(ConfigTest, TheDumpExplainsEveryKeyAndItsRange) {
  EXPECT_EQ(dump_config(Settings{}),
            "# What goes first. [lru or none]\n"
            "policy: lru\n"
            "# A share. [a number from 0 to 1]\n"
            "share: 0.5\n"
            "# More. [true or false]\n"
            "verbose: false\n"
            "# A name.\n"
            "name: \"a \\\"b\\\"\"\n"
            "# Peers.\n"
            "peers: [\"a:1\"]\n"
            "# A file.\n"
            "file: \"\"\n"
            "# Bytes. [a whole number from 1 to 1073741824]\n"
            "bytes: 10\n"
            "\n"
            "# Limits of a request.\n"
            "limits:\n"
            "  # How many. [a whole number from 1 to 64]\n"
            "  most: 4\n"
            "  # How long. [a whole number from 1 to 1000]\n"
            "  patience_ms: 250\n"
            "# Others.\n"
            "others: []\n");
}

TEST_F(ConfigTest, AnUnknownKeyIsRefusedWithItsLineAndTheNearestKey) {
  EXPECT_EQ(refusal("policy: lru\nlimits:\n  mots: 3\n"),
            at_line(3) + ": unknown key 'mots' in 'limits'; did you mean 'most'?");
  EXPECT_EQ(refusal("verbos: true\n"), at_line(1) + ": unknown key 'verbos'; did you mean 'verbose'?");
  EXPECT_THAT(refusal("zzzzzzzzzzzz: true\n"), HasSubstr("known keys: policy, share"));
}

TEST_F(ConfigTest, AValueOutOfRangeOrOfAnotherKindSaysWhatWouldBeRight) {
  EXPECT_EQ(refusal("limits:\n\n  most: 65\n"), at_line(3) + ": limits.most: '65' is not a whole number from 1 to 64");
  EXPECT_THAT(refusal("limits:\n  most: 3.5\n"), HasSubstr("'3.5' is not a whole number"));
  EXPECT_THAT(refusal("policy: fifo\n"), HasSubstr("policy: 'fifo' is not lru or none"));
  EXPECT_THAT(refusal("verbose: yes\n"), HasSubstr("'yes' is not true or false"));
  EXPECT_THAT(refusal("share: nan\n"), HasSubstr("'nan' is not a number"));
  EXPECT_THAT(refusal("peers: a\n"), HasSubstr("is not a list of texts"));
  EXPECT_THAT(refusal("name: [a]\n"), HasSubstr("a list is not text"));
  EXPECT_THAT(refusal("name:\n"), HasSubstr("nothing is not text"));
  EXPECT_THAT(refusal("limits: 3\n"), HasSubstr("'3' stands where nested keys belong"));
  EXPECT_THAT(refusal("[a, b]\n"), HasSubstr("a configuration is a mapping"));
}

TEST_F(ConfigTest, AListOfMappingsIsReadDumpedAndChecked) {
  const Settings settings = load("others:\n  - name: a\n  - {name: b, weight: 3}\n");
  ASSERT_EQ(settings.others.size(), 2u);
  EXPECT_EQ(settings.others[0].weight, 1);
  EXPECT_EQ(settings.others[1].name, "b");
  EXPECT_EQ(settings.others[1].weight, 3);
  const std::string text = dump_config(settings);
  EXPECT_THAT(text, HasSubstr("others:\n    # Its name.\n  - name: \"a\"\n"
                              "    # How much. [a whole number from 1 to 9]\n    weight: 1\n"
                              "  - name: \"b\"\n    weight: 3\n"));
  EXPECT_EQ(dump_config(load(text)), text);
  EXPECT_EQ(load(text, {"others=[{name: c}]"}).others.size(), 1u);
  EXPECT_TRUE(load(text, {"others=[]"}).others.empty());
  EXPECT_EQ(refusal("others:\n  - name: a\n  - nme: b\n"),
            at_line(3) + ": unknown key 'nme' in 'others[1]'; did you mean 'name'?");
  EXPECT_EQ(refusal("others:\n  - weight: 10\n"),
            at_line(2) + ": others[0].weight: '10' is not a whole number from 1 to 9");
  EXPECT_THAT(refusal("others: [a, b]\n"), HasSubstr("a list stands where a list of mappings belongs"));
  EXPECT_THAT(refusal("others: {name: a}\n"), HasSubstr("a mapping stands where a list of mappings belongs"));
  EXPECT_THAT(refusal("others: [{name: a}, b]\n"), HasSubstr("plain values only, or mappings only"));
  EXPECT_THAT(refusal("peers: [{name: a}]\n"), HasSubstr("is not a list of texts"));
}

TEST_F(ConfigTest, BrokenYamlNamesItsLine) {
  EXPECT_THAT(refusal("policy: lru\nlimits: {most: 3\n"), HasSubstr("not YAML"));
  EXPECT_THAT(refusal("share: 0.1\nshare: 0.2\n"), HasSubstr("key 'share' appears twice"));
}

TEST_F(ConfigTest, HugeDeepAndMultiplyingDocumentsAreRefused) {
  EXPECT_THAT(refusal(std::string((1 << 20) + 1, '#')), HasSubstr("bytes; a configuration has at most"));
  std::string deep;
  for (int i = 0; i < 40; ++i) deep += std::string(static_cast<size_t>(i), ' ') + "a:\n";
  EXPECT_THAT(refusal(deep + std::string(40, ' ') + "b: 1\n"), HasSubstr("nested deeper"));
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 9; ++i) {
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " {";
    for (int j = 0; j < 10; ++j) bomb += "k" + std::to_string(j) + ": *a" + std::to_string(i - 1) + ", ";
    bomb += "}\n";
  }
  EXPECT_THAT(refusal(bomb), HasSubstr("more than 10000 values"));
}

TEST_F(ConfigTest, OverridesWinOverTheFileAndTheLastOneWins) {
  const Settings settings = load("limits: {most: 3}\nshare: 0.1\n",
                                 {"limits.most=9", "name=", "peers=[p, q]", "limits.most=11", "limits.patience_ms=5"});
  EXPECT_EQ(settings.limits.most, 11);
  EXPECT_EQ(settings.limits.patience, std::chrono::milliseconds(5));
  EXPECT_EQ(settings.share, 0.1);
  EXPECT_EQ(settings.name, "");
  EXPECT_THAT(settings.peers, ElementsAre("p", "q"));
}

TEST_F(ConfigTest, OverridesWithoutAFileStartFromTheDefaults) {
  Settings settings;
  load_config(settings, {{}, {"limits.most=5"}});
  EXPECT_EQ(settings.limits.most, 5);
}

TEST_F(ConfigTest, AnOverrideThatIsWrongNamesItself) {
  EXPECT_EQ(refusal("", {"limits.mots=3"}),
            "--set limits.mots=3: unknown key 'mots' in 'limits'; did you mean 'most'?");
  EXPECT_THAT(refusal("", {"most"}), HasSubstr("write it as path=value"));
  EXPECT_THAT(refusal("", {"share=2"}), HasSubstr("--set share=2: share: '2' is not a number from 0 to 1"));
}

TEST_F(ConfigTest, AMissingFileIsNotFound) {
  Settings settings;
  try {
    load_config(settings, {file_, {}});
    FAIL() << "a missing file was read";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNotFound);
    EXPECT_THAT(error.what(), HasSubstr(file_.string()));
  }
}

}  // namespace
}  // namespace scd
